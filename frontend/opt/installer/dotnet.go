package installer

import (
	"encoding/xml"
	"path"
	"slices"
	"strings"
)

// dotnetFiles are looked at in the project's directory and in all above it.
var dotnetFiles = []string{
	"Directory.Build.props", "Directory.Build.targets", "Directory.Packages.props", "Directory.Solution.props", "Directory.Solution.targets", "Directory.Build.rsp", "global.json", "nuget.config", "NuGet.config", "NuGet.Config",
}

var dotnetInstallers = []installer{{
	name:      "dotnet restore",
	calls:     []string{"dotnet restore"},
	looks:     slices.Concat(dotnetFiles, []string{"*.csproj", "*.fsproj", "*.vbproj", "*.sln", "*/*.csproj", "*/*.fsproj", "packages.lock.json", "obj", "*/obj", "*/packages.lock.json", "*.user", ".config"}),
	variables: []string{"DOTNET_*", "NUGET_*", "MSBUILD*", "MSBuild*", "ASPNETCORE_*", "!DOTNET_VERSION", "!ASPNET_VERSION", "!NUGET_XMLDOC_MODE", "!DOTNET_SDK_VERSION", "!ASPNETCORE_URLS", "!ASPNETCORE_HTTP_PORTS", "!DOTNET_GENERATE_ASPNET_CERTIFICATE"},
	examine:   dotnetRestore,
}}

// dotnetRestore evaluates the project and those that it refers to, and the properties that hold for their directories.
func dotnetRestore(p *project) {
	flags, operands := p.flags(2, "--no-cache --locked-mode --disable-parallel --ignore-failed-sources --nologo -nologo --force --no-dependencies", "-r --runtime --verbosity -v -s --source -a --arch --os")
	for _, f := range []string{"-s", "--source"} {
		for _, v := range flags[f] {
			if !p.outside(v) {
				p.refuse("local-dependency", "packages come from %s", v)
			}
		}
	}
	switch {
	case len(operands) > 1:
		p.refuse("unknown-argument", "dotnet restore takes one project")
	case len(operands) == 1:
		p.msbuildFile(operands[0], map[string]bool{}, has(flags, "--locked-mode"))
	default:
		if name := p.onlyProject(); name != "" {
			p.msbuildFile(name, map[string]bool{}, has(flags, "--locked-mode"))
		}
	}
}

// onlyProject is the project or solution that dotnet finds in the directory.
func (p *project) onlyProject() string {
	names, ok := p.files.List(p.dir)
	if !ok {
		p.refuse("context-unknown", "it is not known which projects the directory has; name one after dotnet restore")
		return ""
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		return !strings.HasSuffix(path.Ext(n), "proj") && path.Ext(n) != ".sln" && path.Ext(n) != ".slnx" && path.Ext(n) != ".slnf"
	})
	if len(names) != 1 {
		p.refuse("several-projects", "the directory has %d projects", len(names))
		return ""
	}
	return names[0]
}

var solutionProject = lazily(`(?m)^Project\("[^"]*"\) = "[^"]*", "([^"]*)"`)

// msbuildFile makes a solution or project, and what it refers to, manifests.
func (p *project) msbuildFile(name string, seen map[string]bool, locked bool) {
	name = path.Clean(strings.ReplaceAll(name, `\`, "/"))
	if seen[name] || p.refusal != nil {
		return
	}
	seen[name] = true
	e := p.entry(name)
	if e.Mode.IsDir() || !strings.HasSuffix(path.Ext(name), "proj") && path.Ext(name) != ".sln" {
		p.refuse("unknown-argument", "%s is no project or solution", name)
		return
	}
	data := p.need(name)
	if data == nil {
		return
	}
	if path.Ext(name) == ".sln" {
		for _, m := range solutionProject().FindAllStringSubmatch(string(data), -1) {
			if strings.HasSuffix(m[1], "proj") {
				p.msbuildFile(path.Join(path.Dir(name), strings.ReplaceAll(m[1], `\`, "/")), seen, locked)
			}
		}
		p.dotnetDirectory(path.Dir(name))
		return
	}
	dir := path.Dir(name)
	for _, ref := range p.msbuild(name, data) {
		p.msbuildFile(path.Join(dir, ref), seen, locked)
	}
	p.dotnetDirectory(dir)
	p.makes(path.Join(dir, "obj"))
	if lock := path.Join(dir, "packages.lock.json"); p.exists(lock) {
		if !locked {
			p.refuse("lock-may-change", "it may change %s; with --locked-mode it does not", lock)
		}
		p.add(lock)
	}
	p.absent("msbuild", "is imported by the project", name+".user", strings.TrimSuffix(name, path.Ext(name))+".targets")
}

// dotnetDirectory adds the files that hold for a directory, from it upwards.
func (p *project) dotnetDirectory(dir string) {
	abs := path.Join(p.dir, dir)
	for ; abs != "/"; abs = path.Dir(abs) {
		for _, name := range dotnetFiles {
			file := path.Join(abs, name)
			data := p.read(file)
			switch {
			case data == nil || name == "global.json":
			case strings.EqualFold(name, "nuget.config"):
				p.nugetConfig(file, data)
			case strings.HasSuffix(name, ".rsp"):
				p.refuse("msbuild", "%s has arguments for MSBuild", name)
			default:
				p.msbuild(file, data)
			}
		}
	}
}

// msbuild reads a project or properties, refuses what makes MSBuild look at other files, and gives the projects that it refers to.
func (p *project) msbuild(name string, data []byte) (references []string) {
	text := string(data)
	for _, word := range []string{"Exists(", "$([", "<Import ", "<Import\n", "<UsingTask", "Sdk Name=", "RestoreSources>", "RestoreAdditionalProjectSources", "BaseIntermediateOutputPath", "MSBuildProjectExtensionsPath",
		"RestoreConfigFile", "NuGetLockFilePath", "RestorePackagesPath"} {
		if strings.Contains(text, word) {
			p.refuse("msbuild", "%s has %s, which makes MSBuild look at other files", p.shown(path.Clean(path.Join(p.dir, name))), strings.Trim(word, "<>( \n"))
		}
	}
	var file struct {
		Sdk        string `xml:"Sdk,attr"`
		ItemGroups []struct {
			References []struct {
				Include string `xml:"Include,attr"`
			} `xml:"ProjectReference"`
		} `xml:"ItemGroup"`
	}
	if err := xml.Unmarshal(data, &file); err != nil {
		p.refuse("manifest-syntax", "%s does not parse: %v", name, err)
	}
	for _, g := range file.ItemGroups {
		for _, r := range g.References {
			if strings.ContainsAny(r.Include, "$*?;@%") {
				p.refuse("msbuild", "%s refers to the projects %s", name, r.Include)
			}
			references = append(references, strings.ReplaceAll(r.Include, `\`, "/"))
		}
	}
	return references
}

// nugetConfig refuses sources that are directories of the project.
func (p *project) nugetConfig(name string, data []byte) {
	var config struct {
		Sources []struct {
			Value string `xml:"value,attr"`
		} `xml:"packageSources>add"`
		Config []struct {
			Key string `xml:"key,attr"`
		} `xml:"config>add"`
	}
	if err := xml.Unmarshal(data, &config); err != nil {
		p.refuse("manifest-syntax", "%s does not parse: %v", name, err)
	}
	for _, s := range config.Sources {
		if !strings.HasPrefix(s.Value, "https://") && !strings.HasPrefix(s.Value, "http://") {
			p.refuse("local-dependency", "nuget.config has the source %s", s.Value)
		}
	}
	for _, c := range config.Config {
		p.refuse("nuget-config", "nuget.config sets %s", c.Key)
	}
}
