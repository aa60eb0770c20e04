package bases

import "testing"

func TestSourceLines(t *testing.T) {
	got := sourceLines(`bookworm|main|http://deb.debian.org/debian/|/usr/share/keyrings/debian-archive-keyring.gpg
bookworm|main|http://deb.debian.org/debian/|/usr/share/keyrings/debian-archive-keyring.gpg
bookworm|non-free|http://deb.debian.org/debian/|
bookworm-security|main|http://deb.debian.org/debian-security/|
bookworm-pgdg|main|https://apt.postgresql.org/pub/repos/apt/|
nodistro|main|https://deb.nodesource.com/node_20.x/|/usr/share/keyrings/nodesource.gpg
`, "bookworm")
	want := `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian/ bookworm main
deb http://deb.debian.org/debian-security/ bookworm-security main
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
