#!/usr/bin/env bash
# The steps of the action: `steps.sh STEP`. A verb that fails is noted, and the step `result` fails the job after all of them ran.
set -euo pipefail

step=$1
# Inputs of the action; each has a default in action.yml.
bundle=$AUTHZ_ACTION_BUNDLE
folder=$RUNNER_TEMP/authz
failures=$folder/failures

variables=()
while IFS= read -r line; do
  line=${line%$'\r'}
  [ -z "${line//[[:space:]]/}" ] || variables+=(--var "$line")
done <<<"$AUTHZ_ACTION_VARS"

is_chosen() {
  local words=" ${AUTHZ_ACTION_COMMANDS//$'\n'/ } "
  [[ $words == *" $1 "* ]]
}

# Runs a command; its exit code is noted, and returned in `code`.
code=0
run() {
  local verb=$1
  shift
  code=0
  "$@" || code=$?
  [ "$code" = 0 ] || echo "$verb $code" >>"$failures"
}

summary() {
  printf '%s\n' "$@" >>"$GITHUB_STEP_SUMMARY"
}

# The state of a verb in the job summary.
state() {
  case $code in
  0) summary "- **$1**: passed" ;;
  2) summary "- **$1**: failed" ;;
  3) summary "- **$1**: the bundle is not valid" ;;
  *) summary "- **$1**: could not run (exit code $code)" ;;
  esac
}

prepare() {
  rm -rf "$folder"
  mkdir -p "$folder/sarif"
  : >"$failures"
  for word in $AUTHZ_ACTION_COMMANDS; do
    case $word in
    check | test | analyze | diff) ;;
    *)
      echo "::error title=authz::unknown command in the input commands; write check, test, analyze or diff"
      exit 1
      ;;
    esac
  done
  local requirements=()
  read -r -a requirements <<<"${AUTHZ_ACTION_INSTALL//$'\n'/ }"
  if [ "${#requirements[@]}" -gt 0 ]; then
    python -m pip install --quiet --disable-pip-version-check -- "${requirements[@]}"
  fi
  authz version
  # Without a verb that writes SARIF there is nothing to upload.
  if is_chosen check || is_chosen analyze; then
    echo "sarif=$folder/sarif" >>"$GITHUB_OUTPUT"
  fi
  summary "## Authz" ""
}

check() {
  local strict=()
  [ "$AUTHZ_ACTION_STRICT" != true ] || strict=(--strict)
  run check authz check "$bundle" "${variables[@]}" "${strict[@]}" --format github
  state check
  # The log has the errors of a bundle that is not valid, too; the exit code is known already.
  authz check "$bundle" "${variables[@]}" --format sarif >"$folder/sarif/check.sarif" 2>/dev/null || true
  # A folder that cannot be read has no log.
  [ -s "$folder/sarif/check.sarif" ] || rm -f "$folder/sarif/check.sarif"
}

test_bundle() {
  run test authz test "$bundle" "${variables[@]}" --format github
  state test
}

analyze() {
  local report=$folder/report.json options=(--fail-on "$AUTHZ_ACTION_FAIL_ON")
  [ -z "$AUTHZ_ACTION_BASELINE" ] || options+=(--baseline "$AUTHZ_ACTION_BASELINE")
  local more=()
  [ -z "$AUTHZ_ACTION_CACHE" ] || more=(--cache "$AUTHZ_ACTION_CACHE")
  run analyze authz analyze "$bundle" "${variables[@]}" "${options[@]}" "${more[@]}" \
    --format json --output "$report"
  state analyze
  # No report: the verb said why, and its exit code is noted.
  [ -e "$report" ] || return 0
  echo "report=$report" >>"$GITHUB_OUTPUT"
  render "$report" github
  render "$report" sarif --output "$folder/sarif/analyze.sarif"
  render "$report" markdown --output "$folder/analyze.md"
  summary "" "$(cat "$folder/analyze.md")" ""
}

# Renders the report once more. The analysis has judged the findings already, so exit code 2 is no failure here; another one is.
render() {
  local report=$1 style=$2 rendered=0
  shift 2
  authz analyze "$bundle" --report "$report" "${options[@]}" --format "$style" "$@" 2>"$folder/render.log" || rendered=$?
  [ "$rendered" = 0 ] || [ "$rendered" = 2 ] || {
    cat "$folder/render.log" >&2
    echo "analyze $rendered" >>"$failures"
  }
}

diff_base() {
  local base=$AUTHZ_ACTION_BASE
  if [ -z "$base" ]; then
    if [ -z "${GITHUB_BASE_REF:-}" ]; then
      echo "::notice title=authz diff::not a pull request, so there is no bundle to compare with"
      return 0
    fi
    git fetch --quiet --depth=1 origin "refs/heads/$GITHUB_BASE_REF"
    base=FETCH_HEAD
  fi
  local options=()
  [ "$AUTHZ_ACTION_DIFF_FAIL_ON" = none ] || options=(--fail-on "$AUTHZ_ACTION_DIFF_FAIL_ON")
  run diff bash "$GITHUB_ACTION_PATH/diff_revision.sh" "$base" "$bundle" "${variables[@]}" "${options[@]}"
  state diff
}

result() {
  if [ -s "$failures" ]; then
    while read -r verb exit_code; do
      echo "::error title=authz $verb::ended with exit code $exit_code"
    done <"$failures"
    exit 1
  fi
}

case $step in
prepare) prepare ;;
check) ! is_chosen check || check ;;
test) ! is_chosen test || test_bundle ;;
analyze) ! is_chosen analyze || analyze ;;
diff) ! is_chosen diff || diff_base ;;
result) result ;;
*)
  echo "steps.sh: unknown step $step" >&2
  exit 1
  ;;
esac
