#!/bin/sh
# Runs fuzz targets one after the other, each for a time in seconds (default 300): `fuzz/run.sh [SECONDS [TARGET…]]`.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-300}
[ $# -gt 0 ] && shift
python3 fuzz/seeds.py
RUSTC_WORKSPACE_WRAPPER="$PWD/fuzz/rustc.sh" cargo build --package discl-pipe-fuzz
binary=${CARGO_TARGET_DIR:-target}/debug/fuzz
for target in ${*:-feedback hub image listing log onnx parquet pipeline preprocess scheduler tokenizer}; do
    case $target in
        image) options="-max_len=32768" ;;
        listing) options="-max_len=12288 -dict=fuzz/seeds/listing.dict" ;;
        log) options="-max_len=16384 -dict=fuzz/seeds/json.dict" ;;
        onnx) options="-max_len=65536" ;;
        pipeline) options="-max_len=8192 -dict=fuzz/seeds/pipeline.dict" ;;
        tokenizer) options="-max_len=20480 -dict=fuzz/seeds/json.dict" ;;
        *) options="-max_len=4096 -dict=fuzz/seeds/json.dict" ;;
    esac
    mkdir -p "fuzz/found/$target" "fuzz/seeds/$target" "fuzz/artifacts/$target"
    # shellcheck disable=SC2086 # the options are words
    DISCL_FUZZ_TARGET=$target nice -n 10 "$binary" "fuzz/found/$target" "fuzz/corpus/$target" "fuzz/seeds/$target" \
        -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$seconds" -rss_limit_mb=3072 -timeout=30 \
        -print_final_stats=1 $options
done
