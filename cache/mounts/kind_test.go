package mounts

import "testing"

func TestKindOf(t *testing.T) {
	tests := []struct {
		target  string
		name    string
		checked bool
		mayGo   []string
		stay    []string
	}{
		{"/root/.cache/go-build", "go-build", true, []string{"0a/0a12-d", "ff/ff12-a"}, []string{"README", "trim.txt", "fuzz/x/y", "0g/x", "0a"}},
		{"/home/app/.cache/go-build/", "go-build", true, []string{"0a/0a12-d"}, nil},
		{"/go/pkg/mod", "go-mod", true, nil, []string{"example.com/m@v1.0.0/go.mod", "cache/download/x.zip"}},
		{"/root/.npm", "npm", true, []string{"_cacache/content-v2/sha512/aa/bb/cc"}, []string{"_cacache/index-v5/aa/bb/cc", "_logs/x.log"}},
		{"/root/.npm/_cacache", "npm", true, []string{"content-v2/sha512/aa/bb/cc"}, []string{"index-v5/aa/bb/cc"}},
		{"/var/cache/apt", "apt", true, []string{"archives/curl_8_amd64.deb"}, []string{"pkgcache.bin", "archives/lock"}},
		{"/root/.cache/pip", "pip", true, []string{"http-v2/a/b/c/d/e/f", "http/a/b"}, []string{"wheels/a/b/x.whl"}},
		{"/root/.cache/pip/http", "pip", true, []string{"a/b/c/d/e/f"}, nil},
		{"/root/.cache/pip/http-v2", "pip", true, []string{"a/b/c/d/e/f", "a/b/c/d/e/f.body"}, nil},
		{"/root/.cache/pip/wheels", "", false, nil, nil},
		{"/root/.cargo/registry/cache", "cargo", true, []string{"index/x-1.crate"}, []string{"index/x-1.part"}},
		{"/usr/local/cargo/registry/index", "cargo", true, nil, []string{"index/.cache/x"}},
		{"/usr/local/cargo/registry/src", "", false, nil, nil},
		{"/usr/local/cargo/registry", "cargo", true, []string{"cache/index/x-1.crate"}, []string{"src/index/x-1/Cargo.toml"}},
		{"/app/target", "", false, nil, []string{"debug/deps/x.o"}},
		{"/cache", "", false, nil, nil},
		{"/app/node_modules/.cache", "", false, nil, nil},
	}
	for _, tt := range tests {
		k := KindOf(tt.target)
		if k.Name != tt.name || k.Checked != tt.checked {
			t.Errorf("%s: %q, %v", tt.target, k.Name, k.Checked)
		}
		for _, p := range tt.mayGo {
			if k.MayGo == nil || !k.MayGo(p) {
				t.Errorf("%s: %s may not go", tt.target, p)
			}
		}
		for _, p := range tt.stay {
			if k.MayGo != nil && k.MayGo(p) {
				t.Errorf("%s: %s may go", tt.target, p)
			}
		}
	}
}
