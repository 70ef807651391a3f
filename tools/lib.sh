# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.

say() {
    printf '==> %s\n' "$*"
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root is needed for: $* (run it as root, then start again)"
    fi
}

# Directory of nginx's modules; empty without nginx.
nginx_modules() {
    command -v nginx >/dev/null || return 0
    nginx -V 2>&1 | tr ' ' '\n' | sed -n 's/^--modules-path=//p'
}

# Whether LuaJIT inside nginx will find cjson.
has_cjson() {
    compgen -G '/usr/lib/*/lua/5.1/cjson.so' >/dev/null || compgen -G '/usr/*/lib/lua/5.1/cjson.so' >/dev/null
}

# Installs what a build needs.
need_build_tools() {
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || die "there is no Rust toolchain. Install it from https://rustup.rs with
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
and start again."
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    install_packages "${missing[@]}"
}

# Installs what the demo services need.
need_demo_tools() {
    # Debian keeps servers out of the path of ordinary users.
    PATH="$PATH:/usr/sbin:/sbin"
    local missing=() modules
    command -v curl >/dev/null || missing+=(curl)
    command -v nginx >/dev/null || missing+=(nginx)
    modules=$(nginx_modules)
    [[ -n $modules && -e $modules/ngx_http_lua_module.so ]] || missing+=(libnginx-mod-http-lua)
    has_cjson || missing+=(lua-cjson)
    install_packages "${missing[@]}"
}

# Installs the peers that ringway is measured against, and what measures.
need_bench_tools() {
    PATH="$PATH:/usr/sbin:/sbin"
    local missing=()
    command -v nginx >/dev/null || missing+=(nginx)
    command -v haproxy >/dev/null || missing+=(haproxy)
    command -v python3 >/dev/null || missing+=(python3)
    command -v valgrind >/dev/null || missing+=(valgrind)
    install_packages "${missing[@]}"
}

# Installs what counts the instructions per request.
need_instruction_tools() {
    local missing=()
    command -v python3 >/dev/null || missing+=(python3)
    command -v callgrind_control >/dev/null || missing+=(valgrind)
    install_packages "${missing[@]}"
}

# Installs what only the tests need.
need_test_tools() {
    local missing=()
    command -v deck >/dev/null || missing+=(deck)
    command -v dnsmasq >/dev/null || missing+=(dnsmasq-base)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v redis-check-rdb >/dev/null || missing+=(redis-tools)
    # A server of the system's own is not started: tests run theirs.
    [[ -x /usr/sbin/slapd ]] || missing+=(slapd)
    install_packages "${missing[@]}"
}

install_packages() {
    [[ $# -gt 0 ]] || return 0
    say "missing: $*"
    command -v apt-get >/dev/null ||
        die "these packages are named as in Debian, and there is no apt-get; install what they are called here: $*"
    say "installing them with apt-get (this asks for root)"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}
