#!/usr/bin/env bash
# System libraries on Debian and Ubuntu, only those that are missing: installed if you are root or need no password for
# sudo, otherwise the command is printed.
#   scripts/libraries.sh lab     what napari's window needs, and a virtual display; never an error, as the browser works without
#   scripts/libraries.sh test    the same with a browser; an error if something is missing and cannot be installed. RELION too,
#                                but without an error: its tests skip themselves
set -euo pipefail
group=${1:?usage: scripts/libraries.sh lab|test}

wanted=(xvfb xauth libgl1 libglx-mesa0 libgl1-mesa-dri libegl1 libopengl0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4
    libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-render0 libxcb-shape0 libxcb-shm0 libxcb-sync1
    libxcb-xfixes0 libxcb-xinerama0 libxcb-xkb1 libdbus-1-3 libfontconfig1)
if [ "$group" = test ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then
    wanted+=(chromium)
fi

give_up() {
    printf '%s\n' "$@" >&2
    if [ "$group" = lab ]; then echo "Without them napari's windows may not open; everything in the browser works." >&2; exit 0; fi
    exit 1
}

if ! command -v dpkg-query >/dev/null; then
    if command -v xvfb-run >/dev/null && [[ ${wanted[*]} != *chromium* ]]; then exit 0; fi
    give_up "This is not Debian or Ubuntu: install what corresponds to these packages:" "    ${wanted[*]}"
fi

# Which of these packages are not installed, one a line.
missing() {
    local package status
    for package in "$@"; do
        status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || true
        if [ "$status" != installed ]; then echo "$package"; fi
    done
}
needed=($(missing "${wanted[@]}"))
# Refinements are compared with RELION's; where it cannot be had, these tests say so and skip.
optional=()
if [ "$group" = test ] && ! { command -v relion_refine_mpi && command -v mpirun; } >/dev/null; then
    optional=($(missing relion openmpi-bin))
fi
if [ ${#needed[@]} = 0 ] && [ ${#optional[@]} = 0 ]; then exit 0; fi

without() { printf '%s\n' "The tests with RELION will be skipped: $1" >&2; exit 0; }

if [ "$(id -u)" = 0 ]; then as_root=(); elif sudo -n true 2>/dev/null; then as_root=(sudo -n); else
    command="sudo apt-get install --no-install-recommends"
    if [ ${#needed[@]} = 0 ]; then without "install it with $command ${optional[*]}"; fi
    give_up "System libraries are missing. Install them with:" "    $command ${needed[*]}"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    if [ $# = 0 ]; then return; fi
    echo "Installing system libraries: $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@" >"$log" 2>&1
}
# The package lists of a fresh machine are empty or old.
updated=1
"${as_root[@]}" apt-get update >"$log" 2>&1 || updated=0
if [ ${#needed[@]} != 0 ] && ! { [ $updated = 1 ] && install "${needed[@]}"; }; then
    give_up "$(tail -n 5 "$log")" "apt-get could not install: ${needed[*]}"
fi
if ! { [ $updated = 1 ] && install "${optional[@]}"; }; then
    without "apt-get could not install ${optional[*]}"
fi
