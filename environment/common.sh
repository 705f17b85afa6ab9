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
package_list() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$here/$1"; }
