package strip

import (
	"os"
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
	env, homes := c.environment(), c.homes()
	for _, t := range texts {
		for _, word := range pathLike.FindAllString(expand(t, env), -1) {
			rest, home := strings.CutPrefix(word, "~")
			switch {
			case home:
				for _, h := range homes {
					list = append(list, path.Join(h, rest))
				}
				continue
			case !path.IsAbs(word):
				word = path.Join(dir, word)
			}
			list = append(list, path.Clean(word))
		}
	}
	list = slices.DeleteFunc(list, func(p string) bool { return p == "/" })
	slices.Sort(list)
	return slices.Compact(list)
}

// expand puts in values of variables; that of the home directory is ~.
func expand(text string, env map[string]string) string {
	return os.Expand(text, func(name string) string {
		if name == "HOME" {
			return "~"
		}
		return env[name]
	})
}

// homes are the directories that ~ may stand for when the image is run.
func (c Config) homes() []string {
	homes := []string{"/root"}
	if h := c.environment()["HOME"]; path.IsAbs(h) {
		homes = append(homes, path.Clean(h))
	}
	if user, _, _ := strings.Cut(c.User, ":"); user != "" && !strings.Contains(user, "/") {
		homes = append(homes, "/home/"+user)
	}
	return homes
}

// pathLike matches words of a shell's text that have a slash.
var pathLike = regexp.MustCompile(`[^\s"'=:;,|&()<>\x60{}\[\]]*/[^\s"'=:;,|&()<>\x60{}\[\]]*`)

// movers are the variables that say where residue is: what they name is not thereby needed. HOME is one, as the homes are.
func movers() []string {
	list := []string{"HOME"}
	for _, r := range Rules {
		for _, t := range r.Trees {
			for _, root := range t.Roots {
				if root.Var != "" {
					list = append(list, root.Var)
				}
			}
		}
	}
	return list
}
