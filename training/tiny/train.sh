#!/bin/sh
# Trains the tiny MimicMotion in FOLDER, where `python -m choreo.training.tiny parts FOLDER` has put the other networks.
# Started again it goes on from the last checkpoint.
set -e
folder=${1:?usage: train.sh FOLDER}
choreo=${CHOREO:-.venv/bin/choreo}
common="--data puppets --svd $folder/svd --size 128 128 --warmup 100 --schedule cosine --clip-gradients 1 --ema 0.995 --checkpoint-every 250 --hand-weight 3"
short_steps=${SHORT_STEPS:-5000}
window_steps=${WINDOW_STEPS:-600}

# Many characters in windows of the reference and four frames.
$choreo train mimicmotion $common --config "$folder/mimicmotion.json" --latent-cache "$folder/cache-short" \
  --clips 2100 --frames 5 --batch 8 --lr 1e-3 --steps "$short_steps" --output "$folder/short"

# Whole windows of sixteen.
$choreo train mimicmotion $common --weights "$folder/short/checkpoint-$short_steps/MimicMotion.safetensors" --latent-cache "$folder/cache-windows" \
  --clips 250 --frames 16 --batch 2 --lr 3e-4 --steps "$window_steps" --output "$folder/windows"
