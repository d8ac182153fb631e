#!/usr/bin/env bash
# Makes an image for docker-compose.yml where none can be pulled: this machine's PostgreSQL, the libraries it loads, and a shell.
#
#   POSTGRES_IMAGE=$(docker/build-image.sh) docker compose up -d
#
# Prints the image's name on standard output and what it does on standard error. An image made by the same recipe from the same
# server is used again. Takes a few seconds and about 100 MB. Needs Linux, a Docker engine, and PostgreSQL: Debian's packages, or
# wherever else scripts/postgres.sh gets it.
#
#   IMAGE    its name (pgdetour-postgres:local)
#   PG_BIN   the directory with the server's programs (else what scripts/postgres.sh finds or fetches)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
image=${IMAGE:-pgdetour-postgres:local}

say() { echo "build-image: $*" >&2; }
die() { say "$*"; exit 1; }

# ask OPTION RELATIVE: what pg_config says, or that place beside the binaries for a build that has no pg_config.
ask() { "$bin/pg_config" "$1" 2>/dev/null || (cd "$bin/$2" && pwd -P); }

# take FILE...: copies files into the stage under the path they have here, a link as what it stands for.
take() { cp -L --parents "$@" "$stage"; }

# The libraries that the given binaries load, as the loader names them.
libraries() { ldd "$@" 2>/dev/null | grep -o '/[^ ]*\.so[^ :]*' | xargs realpath --no-symlinks | sort -u; }

stage_server() {
  local share modules
  share=$(ask --sharedir ../share)
  modules=$(ask --pkglibdir ../lib)
  mkdir -p "$stage$bin" "$stage$share" "$stage$modules"
  local name
  for name in postgres initdb pg_controldata pg_basebackup pg_ctl pg_isready pg_rewind psql createdb; do
    [ -x "$bin/$name" ] || die "'$name' is missing in $bin"
    take "$bin/$name"
  done
  # LLVM is 100 MB for queries that no drill runs, and languages pull in their interpreters: without them the server says so, and works.
  tar -C "$modules" --exclude=bitcode --exclude='llvmjit*' --exclude='plp[ey]*' --exclude='pltcl*' --exclude='*_pl*' --exclude=pgxs -chf - . |
    tar -C "$stage$modules" -xf -
  tar -C "$share" --exclude=man --exclude=locale -chf - . | tar -C "$stage$share" -xf -
  # As the official image has it: a server in a container is there for others.
  echo "listen_addresses = '*'" >>"$stage$share/postgresql.conf.sample"
}

stage_shell() {
  local tool path
  for tool in bash sh cat chmod chown cp date dirname env find grep head id kill locale ls mkdir mv readlink rm sed setpriv sleep tail tee \
    timeout touch tr; do
    path=$(type -P "$tool") || die "'$tool' is missing on this machine"
    take "$path"
    mkdir -p "$stage/usr/local/bin"
    ln -sf "$path" "$stage/usr/local/bin/$tool"
  done
}

# The few files that make it a system: users, name look-up, time zones, and the entry point of the same contract as the official image's.
stage_system() {
  mkdir -p "$stage"/{etc,tmp,root,var/lib/postgresql,var/run/postgresql,docker-entrypoint-initdb.d,bin,usr/bin}
  chmod 1777 "$stage/tmp"
  printf '%s\n' 'root:x:0:0::/root:/bin/sh' 'postgres:x:999:999::/var/lib/postgresql:/bin/sh' >"$stage/etc/passwd"
  printf '%s\n' 'root:x:0:' 'postgres:x:999:' >"$stage/etc/group"
  echo 'hosts: files dns' >"$stage/etc/nsswitch.conf"
  if [ -d /usr/share/zoneinfo ]; then mkdir -p "$stage/usr/share" && cp -a /usr/share/zoneinfo "$stage/usr/share/"; fi
  if [ -d /usr/lib/locale/C.utf8 ]; then mkdir -p "$stage/usr/lib/locale" && cp -a /usr/lib/locale/C.utf8 "$stage/usr/lib/locale/"; fi
  [ -e "$stage/bin/sh" ] || ln -s "$(type -P sh)" "$stage/bin/sh"
  [ -e "$stage/usr/bin/env" ] || ln -s "$(type -P env)" "$stage/usr/bin/env"
  install -m 755 "$here/image-entrypoint.sh" "$stage/usr/local/bin/docker-entrypoint.sh"
  cat >"$stage/usr/local/bin/gosu" <<'GOSU'
#!/bin/sh
# gosu USER COMMAND...: what the official image has, by setpriv
user=$1 && shift
exec setpriv --reuid="$user" --regid="$user" --init-groups "$@"
GOSU
  chmod 755 "$stage/usr/local/bin/gosu"
}

# Libraries last: whatever has been staged says which. The C library's name look-up modules are loaded by name, not linked.
stage_libraries() {
  local found
  mapfile -t found < <(find "$stage" -type f \( -perm -u+x -o -name '*.so*' \) | sed "s|^$stage||")
  mapfile -t found < <(
    libraries "${found[@]}"
    ls -d /lib/*-linux-gnu/libnss_{files,dns}.so.2 /lib64/libnss_{files,dns}.so.2 2>/dev/null
  )
  take "${found[@]}"
}

import() {
  # Parents keep the modes they have here, and the server runs as somebody who may not look into this user's home.
  chmod -R a+rX "$stage"
  tar -C "$stage" --owner=0 --group=0 --numeric-owner -cf - . |
    docker import --message 'PostgreSQL for the pgdetour pair' \
      --change "LABEL pgdetour.recipe=$recipe" \
      --change "ENV PATH=$bin:/usr/local/bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/data LANG=C.UTF-8" \
      --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["postgres"]' \
      --change 'EXPOSE 5432' \
      - "$image" >/dev/null
}

command -v docker >/dev/null || die "no 'docker' command: install a Docker engine, or set POSTGRES_IMAGE where the pair runs"
docker version --format '{{.Server.Version}}' >/dev/null || die "no Docker engine answers (is it running, and may this user use it?)"
bin=$("$here/../scripts/postgres.sh") || die "no PostgreSQL to make an image of"
bin=$(cd "$bin" && pwd -P)
version=$("$bin/postgres" --version)
recipe=$( (echo "$bin $version"; cat "$here/build-image.sh" "$here/image-entrypoint.sh") | sha256sum | cut -c1-16)

if [ "$(docker image inspect --format '{{index .Config.Labels "pgdetour.recipe"}}' "$image" 2>/dev/null)" = "$recipe" ]; then
  say "$image is there already ($version)"
  echo "$image"
  exit
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
say "collecting $version from $bin"
stage_server
stage_shell
stage_system
stage_libraries
replaced=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null || true)
say "importing $(du -sh "$stage" | cut -f1) as $image"
import
if ! docker run --rm --network none --entrypoint postgres "$image" --version >/dev/null; then
  docker image rm "$image" >/dev/null || true
  die "the image's server does not start"
fi
if [ -n "$replaced" ]; then docker image rm "$replaced" >/dev/null 2>&1 || true; fi
say "$image is ready after $SECONDS s"
echo "$image"
