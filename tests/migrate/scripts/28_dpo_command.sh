#!/bin/bash
# TRL 0.8 command line
set -e
trl dpo \
    --model_name_or_path gpt2 \
    --dataset_name pairs.jsonl \
    --output_dir from-shell \
    --per_device_train_batch_size 2 \
    --max_steps 2 \
    --logging_steps 1 \
    --evaluation_strategy no \
    --max_target_length 64 \
    --no_cuda \
    --overwrite_output_dir \
    --torch_dtype float32
