#!/usr/bin/env bash
# Fuzzing with libFuzzer: needs a nightly compiler and cargo-fuzz (docs/fuzzing.md).
#   run.sh TARGET SECONDS [OPTION...]   fuzzes one target; options are libFuzzer's
#   run.sh all SECONDS                  each target in turn; without nightly or cargo-fuzz prints SKIP and ends well
#   run.sh minimise                     makes corpus/ anew, from the seeds and what was found on this machine
# What is found on this machine is kept in target/found/TARGET, and begins the next run; crashes go to artifacts/.
# FUZZ_SANITIZER=address looks at the unsafe code of dependencies too, at half the speed.
set -euo pipefail
cd "$(dirname "$0")"
export PATH="$PATH:$HOME/.cargo/bin" CARGO_TERM_COLOR=never
sanitizer=${FUZZ_SANITIZER:-none}
targets=(archive documents expander ignore lower manifest names parser tar xz)

missing() {
  cargo +nightly --version > /dev/null 2>&1 || { echo "a nightly compiler"; return; }
  cargo fuzz --version > /dev/null 2>&1 || echo "cargo-fuzz"
}

build() {
  # The dependencies are those that are shipped.
  cp ../../Cargo.lock Cargo.lock
  cargo +nightly fuzz build --fuzz-dir . --sanitizer "$sanitizer"
}

program() { echo "target/$(rustc -vV | sed -n 's/^host: //p')/release/$1"; }

fuzz() {
  local target=$1 seconds=$2
  shift 2
  mkdir -p "target/found/$target" "artifacts/$target"
  "$(program "$target")" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=4096 -print_final_stats=1 \
    -artifact_prefix="artifacts/$target/" "$@" "target/found/$target" "corpus/$target"
}

# Few short inputs that reach what all that were found do, and what only longer seeds reach besides. Faults that were
# found, whose names say what they were, stay.
minimise() {
  local target=$1 into=target/minimised/$1 short=320
  # A header alone has 512 bytes.
  [ "$target" != tar ] || short=640
  rm -rf "$into" && mkdir -p "$into" "target/found/$target" "corpus/$target"
  "$(program "$target")" -set_cover_merge=1 -use_counters=0 -max_len=$short "$into" "target/seeds/$target" \
    "target/found/$target" 2> /dev/null
  "$(program "$target")" -merge=1 -use_counters=0 -max_len=2048 "$into" "target/seeds/$target" 2> /dev/null
  find "corpus/$target" -type f ! -name '*-*' -delete
  for file in "$into"/*; do
    cp "$file" "corpus/$target/$(sha256sum "$file" | cut -c 1-16)"
  done
}

case ${1:-} in
  all)
    lacking=$(missing)
    if [ -n "$lacking" ]; then
      echo "SKIP fuzz: $lacking is not there"
      exit 0
    fi
    build
    failed=0
    for target in "${targets[@]}"; do
      fuzz "$target" "$2" > "target/$target.log" 2>&1 || { failed=$((failed + 1)); tail -n 40 "target/$target.log"; }
      echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "target/$target.log") executions"
    done
    echo "$((${#targets[@]} - failed)) passed, $failed failed"
    [ "$failed" -eq 0 ]
    ;;
  minimise)
    build
    rm -rf target/seeds
    python3 seeds.py target/seeds
    for target in "${targets[@]}"; do minimise "$target"; done
    du -sb corpus/*
    ;;
  *)
    [ $# -ge 2 ] || { sed -n '2,7s/^# *//p' run.sh; exit 2; }
    build
    fuzz "$@"
    ;;
esac
