# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared with whoever sources this
# What the scripts of this folder share. Sourced with $here set to the folder.

say() { printf 'fem-dnn: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}
no_namespaces() {
    fail "this machine does not let $(id -un) make mount namespaces, which the private Debian needs:" \
        "use conda (environment.yml) or a container (Dockerfile) instead"
}

: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
cache=${FEM_DNN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fem-dnn}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac

# The entries of a list, one per line, without comments and blank lines.
package_list() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$1"; }

# Everything that decides what is in the private root of a folder of lists: change one, and a new
# root is made.
root_key() {
    {
        package_list "$1/packages.txt"
        [ ! -e "$1/pypi.txt" ] || package_list "$1/pypi.txt"
        uname -m
        cat "$here/build-root"
    } | sha256sum | cut -c 1-12
}

# Only one set-up at a time; whoever waited finds the work done.
with_lock() {
    mkdir -p "$cache" || fail "cannot make the folder $cache; choose another with FEM_DNN_CACHE"
    exec 9>"$cache/lock"
    if ! flock --nonblock 9; then
        say "another run is preparing the environment in $cache; waiting for it"
        flock 9
    fi
}

# Makes the private root of a folder of lists if there is none, saying why if there is a reason to
# say, and prints its path.
private_root() {
    local lists=$1 reason=$2 root partial
    root=$cache/root-$(root_key "$lists")
    partial="$root.partial.$$"
    if [ ! -e "$root" ]; then
        with_lock
    fi
    if [ ! -e "$root" ]; then
        # Whoever holds the lock owns every unfinished root: their makers were interrupted.
        rm -rf --one-file-system "$cache"/root-*.partial.*
        [ -z "$reason" ] || say "$reason"
        "$here/build-root" "$partial" "$cache/${root##*/}.log" "$lists" || return
        mv -T "$partial" "$root"
        say "the environment is ready: $root"
    fi
    printf '%s\n' "$root"
}
