#!/usr/bin/env bash
# The whole recipe on one GPU: codecs, clips, flow matching, distillation, LoRAs, a look at the result.
#
#   training/recipe.sh OUT FLOW_S DISTILL_S        e.g. training/out 600 240
#
# Every stage writes its weights and its log to OUT; OUT/stages says when each began. Stages that have left their
# weights there already are not repeated, so the shipped model, taken apart there (python -m training.unpack), lends
# what is not to be trained again.
# FLOW_S 0: OUT/transformer.safetensors is done, from another machine perhaps, and only distilled.
# START: weights that flow matching goes on from. CODEC_S: seconds for the video VAE. VOCODER_S: for the vocoder.
# WORKERS, BANK_ARGUMENTS: see training.bank. PYTHON: the interpreter.
set -u
out=$1 flow_s=$2 distill_s=$3
bank=$out/bank workers=${WORKERS:-6} python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1
mkdir -p "$bank"

say() { echo "$(date +%T) $1" | tee -a "$out/stages"; }
stage() { # LOG MODULE ARGUMENTS...
    local log=$out/$1.log module=$2
    shift 2
    $python -m "training.$module" --directory "$out" "$@" > "$log" 2>&1 || say "$module ended with $?: $log"
}

# The audio VAE is small: it trains beside the video VAE, and the vocoder, which hears what it makes, after it.
sound() {
    [ -f "$out/audio_vae.safetensors" ] || stage audio_vae audio_vae --seconds 110
    [ -f "$out/vocoder.safetensors" ] || stage vocoder vocoder --audio-vae "$out/audio_vae.safetensors" \
        --seconds "${VOCODER_S:-500}"
    say "sound done"
}
say codecs
sound &
[ -f "$out/video_vae.safetensors" ] || stage video_vae video_vae --seconds "${CODEC_S:-360}"
while [ ! -f "$out/audio_vae.safetensors" ]; do sleep 1; done

say clips
for worker in $(seq 0 $((workers - 1))); do
    OMP_NUM_THREADS=2 $python -m training.bank --directory "$out" --bank "$bank" \
        --worker "$worker" --workers "$workers" ${BANK_ARGUMENTS:-} > "$out/bank-$worker.log" 2>&1 &
done

if [ ! -f "$out/distilled.safetensors" ]; then
    say flow
    [ "$flow_s" = 0 ] || stage flow transformer --bank "$bank" ${START:+--start "$START"} --seconds "$flow_s"
    say distill
    stage distill distill --bank "$bank" --seconds "$distill_s"
fi

package() {
    $python -m training.package --directory "$out" --bank "$bank" --device cuda --target "$out/model" > "$out/package.log" 2>&1
}
look() { # package what there is and judge a few held-out prompts
    # Beside weights that were there before, the first clips may not be.
    for _ in $(seq 120); do ls "$bank"/base-small-*.pt > /dev/null 2>&1 && break; sleep 1; done
    package \
        && $python -m benchmarks.quality --model "$out/model" --device cuda --rows prompts --count "${LOOK:-48}" \
            --processes 8 --json "$out/look.json" --sheet "$out/look.png" > "$out/look.log" 2>&1
}
lora_steps() { # KIND: see training/README.md, LoRAs
    case $1 in
        control | striped) echo 2600 ;;
        identity) echo 400 ;;
        *) echo 900 ;;
    esac
}
say LoRAs
while [ ! -f "$out/vocoder.safetensors" ]; do sleep 1; done
look &
# On the weights as flow matching left them; the shipped ones, taken apart, are distilled ones alone.
base=transformer.safetensors
[ -f "$out/$base" ] || base=distilled.safetensors
# All at once: each compiles for a minute before it trains, on a processor core and not on the GPU.
for kind in control identity colorizer striped chime cameraman; do
    [ -f "$out/lora-$kind.safetensors" ] || stage "lora-$kind" lora --kind "$kind" --transformer "$base" --bank "$bank" \
        --steps "$(lora_steps "$kind")" &
done
wait
package
say done
