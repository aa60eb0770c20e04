package strip

import (
	"path"
	"regexp"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Config is the configuration of an image: what its containers run, and with what.
type Config dockerspec.DockerOCIImageConfig

func (c Config) environment() map[string]string {
	env := map[string]string{}
	for _, e := range c.Env {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	return env
}

// named are the paths that the configuration names: volumes, the working directory, and whatever looks like a path in the texts that say what is run. They are kept, with
// all that is below them. The root directory is not among them, or nothing would ever be residue.
func (c Config) named() []string {
	var texts []string
	texts = append(texts, c.Cmd...)
	texts = append(texts, c.Entrypoint...)
	texts = append(texts, c.Shell...)
	texts = append(texts, c.OnBuild...)
	if c.Healthcheck != nil {
		texts = append(texts, c.Healthcheck.Test...)
	}
	for _, v := range c.Labels {
		texts = append(texts, v)
	}
	movers := movers()
	for name, value := range c.environment() {
		if !slices.Contains(movers, name) {
			texts = append(texts, value)
		}
	}
	dir := c.WorkingDir
	if !path.IsAbs(dir) {
		dir = "/" + dir
	}
	var list []string
	for v := range c.Volumes {
		list = append(list, path.Join("/", v))
	}
	list = append(list, path.Clean(dir))
	for _, t := range texts {
		for _, word := range pathLike.FindAllString(t, -1) {
			if !path.IsAbs(word) {
				word = path.Join(dir, word)
			}
			list = append(list, path.Clean(word))
		}
	}
	list = slices.DeleteFunc(list, func(p string) bool { return p == "/" })
	slices.Sort(list)
	return slices.Compact(list)
}

// pathLike matches words of a shell's text that have a slash.
var pathLike = regexp.MustCompile(`[^\s"'=:;,|&()<>\x60{}\[\]]*/[^\s"'=:;,|&()<>\x60{}\[\]]*`)

// movers are the variables that say where residue is: what they name is not thereby needed. HOME is one, as the homes are.
func movers() []string {
	list := []string{"HOME"}
	for _, r := range Rules {
		for _, p := range r.Paths {
			list = append(list, p.Vars...)
		}
	}
	return list
}
