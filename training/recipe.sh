#!/usr/bin/env bash
# The whole recipe on one GPU: codecs, clips, flow matching, distillation, LoRAs, a look at the result.
#
#   training/recipe.sh OUT FLOW_S DISTILL_S LORA_S        e.g. training/out 640 240 120
#
# Every stage writes its weights and its log to OUT; OUT/stages says when each began. With the shipped model taken
# apart there (python -m training.unpack --target OUT) only the LoRAs are trained.
# Stages that have left their weights there already are not repeated.
# WORKERS, BANK_ARGUMENTS: see training.bank. PYTHON: the interpreter.
set -u
out=$1 flow_s=$2 distill_s=$3 lora_s=$4
bank=$out/bank workers=${WORKERS:-6} python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1
mkdir -p "$bank" "$out/trial"

say() { echo "$(date +%T) $1" | tee -a "$out/stages"; }

[ -f "$out/video_vae.safetensors" ] || { say "video VAE"; $python -m training.video_vae --directory "$out" --seconds 480; }
[ -f "$out/audio_vae.safetensors" ] || { say "audio VAE"; $python -m training.audio_vae --directory "$out" --seconds 120; }
[ -f "$out/vocoder.safetensors" ] || { say vocoder; $python -m training.vocoder --directory "$out" --seconds 300; }

say bank
for worker in $(seq 0 $((workers - 1))); do
    OMP_NUM_THREADS=2 $python -m training.bank --directory "$out" --bank "$bank" \
        --worker "$worker" --workers "$workers" ${BANK_ARGUMENTS:-} > "$out/bank-$worker.log" 2>&1 &
done

lora_way="--no-compile --graph"
base() {
    # Which way of running a step is fastest, tried while the first clips are made.
    tries=()
    for way in "--compile --graph" "--no-compile --graph" "--no-compile --no-graph"; do
        timeout 120 $python -m training.transformer --directory "$out" $way --rehearse 20 \
            > "$out/rehearse${way// /}.log" 2>&1 &
        tries+=("$!")
    done
    wait "${tries[@]}"
    way=$($python -m training.fastest "$out"/rehearse*.log)

    say "flow $way"
    $python -m training.transformer --directory "$out" --bank "$bank" $way --seconds "$flow_s" > "$out/flow.log" 2>&1 &
    flow=$!
    # The later stages' kernels are compiled, and their graphs tried, before their turn comes.
    while [ ! -f "$out/transformer.safetensors" ] && kill -0 "$flow"; do sleep 1; done
    ln -sf "$(realpath "$out")"/{transformer,audio_vae}.safetensors "$out/trial/"
    ln -sf transformer.safetensors "$out/trial/distilled.safetensors"
    distill_way="--no-compile --no-graph"
    for try in "--compile --graph" "--no-compile --graph"; do
        if timeout 200 $python -m training.distill --directory "$out/trial" --bank "$bank" $try --steps 4 \
            > "$out/trial/distill${try// /}.log" 2>&1; then
            distill_way=$try
            break
        fi
        rm -f "$out/trial/distill.state.pt"
    done
    rm -f "$out/trial/distilled.safetensors" && ln -sf transformer.safetensors "$out/trial/distilled.safetensors"
    if ! timeout 100 $python -m training.lora --kind control --directory "$out/trial" --bank "$bank" --no-compile --steps 4 \
        > "$out/trial/lora.log" 2>&1; then
        lora_way="--no-compile --no-graph"
    fi
    say "tried: distill $distill_way, LoRAs $lora_way"
    wait "$flow"

    say distill
    $python -m training.distill --directory "$out" --bank "$bank" $distill_way --seconds "$distill_s" \
        > "$out/distill.log" 2>&1
}
[ -f "$out/distilled.safetensors" ] || base

say LoRAs
($python -m training.package --directory "$out" --target "$out/model" \
    && $python -m training.preview --model "$out/model" --count 48 --sheet "$out/preview.png") \
    > "$out/preview.log" 2>&1 &
lora() {
    $python -m training.lora --kind "$1" --directory "$out" --bank "$bank" $lora_way --seconds "$lora_s" \
        > "$out/lora-$1.log" 2>&1
}
pair() {
    lora "$1" &
    local first=$!
    lora "$2" &
    wait "$first" "$!"
}
pair control identity
pair colorizer striped
pair chime cameraman
say done
wait
