// Before anything is painted. ?view=picture: nothing but the picture and its sound, for the browser source of a
// streaming program.

const view = new URLSearchParams(location.search).get("view");
if (view !== null) document.documentElement.dataset.view = view;
