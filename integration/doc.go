// Package integration tests the real optbuild binary, as root and as an ordinary user.
//
// The tests are the scripts below testdata/script, in the language of rogpeppe/go-internal's testscript with the commands
// of commands_test.go. Each script gets a state directory and a registry of its own, with the base images of package bases
// in it. The binary is the one that OPTBUILD_BIN names; `make test` builds and names it. The README walks through a script.
package integration
