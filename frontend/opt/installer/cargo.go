package installer

import (
	"path"

	"github.com/pelletier/go-toml/v2"
)

var cargoInstallers = []installer{{
	name:  "cargo fetch",
	calls: []string{"cargo fetch"},
	looks: []string{
		"Cargo.toml", "Cargo.lock", "src/main.rs", "src/lib.rs", "rust-toolchain", "rust-toolchain.toml", ".cargo", ".tool-versions", "mise.toml",
	},
	variables: []string{"CARGO_*", "RUST*", "!RUST_VERSION", "!CARGO_NET_GIT_FETCH_WITH_CLI", "!CARGO_REGISTRIES_CRATES_IO_PROTOCOL", "!RUST_BACKTRACE", "!RUSTFLAGS", "!CARGO_TERM_COLOR"},
	examine:   cargoFetch,
}}

// cargoManifest is what matters of Cargo.toml.
type cargoManifest struct {
	Package *struct {
		Workspace string `toml:"workspace"`
	} `toml:"package"`
	Lib *struct {
		Path string `toml:"path"`
	} `toml:"lib"`
	Bin []struct {
		Path string `toml:"path"`
	} `toml:"bin"`
	Workspace         any            `toml:"workspace"`
	Dependencies      map[string]any `toml:"dependencies"`
	DevDependencies   map[string]any `toml:"dev-dependencies"`
	BuildDependencies map[string]any `toml:"build-dependencies"`
	Target            map[string]struct {
		Dependencies      map[string]any `toml:"dependencies"`
		DevDependencies   map[string]any `toml:"dev-dependencies"`
		BuildDependencies map[string]any `toml:"build-dependencies"`
	} `toml:"target"`
	Patch   map[string]map[string]any `toml:"patch"`
	Replace map[string]any            `toml:"replace"`
}

// cargoFetch reads Cargo.toml and Cargo.lock, and looks for the root file of a target, without which it refuses the manifest. It does not read that
// file, but it has to be there: where Cargo.toml names none, src/main.rs or src/lib.rs is copied with the manifests.
func cargoFetch(p *project) {
	flags, operands := p.flags(2, "--locked --frozen -q --quiet -v --verbose", "--target")
	if len(operands) > 0 {
		p.refuse("unknown-argument", "cargo fetch takes no operands")
	}
	data := p.need("Cargo.toml")
	if data == nil {
		return
	}
	var m cargoManifest
	if err := toml.Unmarshal(data, &m); err != nil {
		p.refuse("manifest-syntax", "Cargo.toml does not parse: %v", err)
	}
	if m.Workspace != nil || m.Package != nil && m.Package.Workspace != "" || m.Package == nil {
		p.refuse("workspaces", "Cargo.toml is that of a workspace, whose members are looked at")
	}
	tables := []map[string]any{m.Dependencies, m.DevDependencies, m.BuildDependencies, m.Replace}
	for _, name := range sortedKeys(m.Target) {
		t := m.Target[name]
		tables = append(tables, t.Dependencies, t.DevDependencies, t.BuildDependencies)
	}
	for _, name := range sortedKeys(m.Patch) {
		tables = append(tables, m.Patch[name])
	}
	for _, deps := range tables {
		for _, name := range sortedKeys(deps) {
			table, _ := deps[name].(map[string]any)
			if dir, ok := table["path"]; ok {
				p.refuse("local-dependency", "Cargo.toml names %s by its path %v", name, dir)
			}
			if table["workspace"] == true {
				p.refuse("workspaces", "%s is a dependency of a workspace", name)
			}
		}
	}
	if p.exists("Cargo.lock") && len(flags["--locked"])+len(flags["--frozen"]) == 0 {
		p.refuse("lock-may-change", "it may change Cargo.lock; with --locked it does not")
	}
	p.add("Cargo.lock", "rust-toolchain", "rust-toolchain.toml", ".tool-versions", "mise.toml")
	p.absent("cargo-config", "may name other files", ".cargo")
	p.notAbove("Cargo.toml", ".cargo", "rust-toolchain", "rust-toolchain.toml")
	p.cargoTargets(&m)
}

func (p *project) cargoTargets(m *cargoManifest) {
	explicit := m.Lib != nil && m.Lib.Path != ""
	if m.Lib != nil && m.Lib.Path == "" && !p.exists("src/lib.rs") {
		p.refuse("no-target", "Cargo.toml has a library whose file is not known")
	}
	for _, b := range m.Bin {
		if b.Path == "" {
			p.refuse("no-target", "Cargo.toml has a program without the path of its file")
		}
		explicit = true
	}
	before := len(p.manifests)
	p.add(path.Join("src", "main.rs"), path.Join("src", "lib.rs"))
	if !explicit && len(p.manifests) == before {
		p.refuse("no-target", "neither src/main.rs nor src/lib.rs is copied, and Cargo.toml names no other file")
	}
	if explicit { // they are not looked at
		p.manifests = p.manifests[:before]
		if m.Lib != nil && m.Lib.Path == "" {
			p.add("src/lib.rs")
		}
	}
}
