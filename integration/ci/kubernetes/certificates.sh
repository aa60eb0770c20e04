#!/bin/sh
# Makes an authority and the certificates of the daemons and of those who build: certificates.sh NAMESPACE DIRECTORY. It needs openssl 3.
# The authority's key (ca.key) is needed for further certificates only: keep it elsewhere.
set -eu
namespace=$1 dir=$2 days=${DAYS:-365}
umask 077
mkdir -p "$dir"
cd "$dir"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" -subj "/CN=buildkitd of $namespace" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem 2>/dev/null

# certificate DIRECTORY EXTENSIONS
certificate() {
  mkdir -p "$1"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1/key.pem" -out "$1/request.pem" 2>/dev/null
  printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n%s\n' "$2" >"$1/extensions"
  openssl x509 -req -in "$1/request.pem" -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" -extfile "$1/extensions" -out "$1/cert.pem" 2>/dev/null
  cp ca.pem "$1/ca.pem"
  rm "$1/request.pem" "$1/extensions"
}

names=DNS:localhost
for arch in amd64 arm64; do
  for domain in "$namespace.svc" "$namespace.svc.cluster.local"; do
    names="$names,DNS:*.buildkitd-$arch.$domain"
  done
done
certificate daemon "extendedKeyUsage=serverAuth
subjectAltName=$names"
certificate client extendedKeyUsage=clientAuth
