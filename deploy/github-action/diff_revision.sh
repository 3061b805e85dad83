#!/usr/bin/env bash
# Compares a bundle with its state at a revision of Git: `diff_revision.sh REVISION BUNDLE [OPTIONS of authz diff]`.
# The exit code is that of `authz diff`. A revision without the bundle is compared with nothing, and says so.
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: diff_revision.sh REVISION BUNDLE [OPTIONS]" >&2
  exit 1
fi
revision=$1
bundle=${2%/}
shift 2

commit=$(git -C "$bundle" rev-parse --quiet --verify --end-of-options "$revision^{commit}") || {
  echo "diff_revision.sh: Git has no revision $revision; fetch it first (actions/checkout: fetch-depth: 0)" >&2
  exit 1
}
# The bundle may be named from any folder of the repository, but the tree of a commit begins at its root.
root=$(git -C "$bundle" rev-parse --show-toplevel)
prefix=$(git -C "$bundle" rev-parse --show-prefix)
if ! git -C "$root" cat-file -e "$commit:${prefix%/}" 2>/dev/null; then
  echo "diff_revision.sh: revision $revision has no bundle ${prefix:-at its root}: nothing to compare with"
  exit 0
fi
old=$(mktemp -d)
trap 'rm -rf "$old"' EXIT
git -C "$root" archive --format=tar "$commit:${prefix%/}" | tar -x -C "$old"
authz diff "$old" "$bundle" "$@"
