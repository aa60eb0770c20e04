package fuzzbuild

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Generate makes a project from a seed: a context of a few small files, one to three stages, and steps that read, list, test, move,
// change and remove what COPY brought. Most names of the steps are there, some are not. The same seed gives the same project.
func Generate(seed uint64) *Project {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 3))}
	var a strings.Builder
	a.WriteString("Generated.\n\npulse: NOTES\nprobe: " + strings.Join(absent, " ") + "\n")
	times := g.chance(20)
	if times {
		a.WriteString("times:\n")
	}
	a.WriteString("-- Dockerfile --\n" + g.dockerfile(times) + "-- NOTES --\n1\n")
	for _, f := range present {
		content := fmt.Sprintf("# %s %d\n", f, g.IntN(3)) // harmless, should it take the script's place
		if f == script {
			content = g.commands(3, "s")
			content = strings.ReplaceAll(content, "; ", "\n") + "\n"
		}
		a.WriteString("-- " + f + " --\n" + content)
	}
	if g.chance(40) {
		a.WriteString("-- " + pick(g, "link", "d/link") + " -> " + pick(g, "a", "d", "nowhere", "../a", ".") + " --\n")
	}
	if g.chance(15) {
		a.WriteString("-- .dockerignore --\n" + pick(g, "*.txt\n!b.txt\n", "d/g\n", ".k\n", "i\n!i/j.txt\n"))
	}
	if g.chance(30) {
		a.WriteString("-- setup.sh --\nfind . -type d -exec chmod 755 {} +\nchmod " + pick(g, "755 c.sh", "600 a", "700 d", "775 i", "664 b.txt") + "\n")
	}
	p, err := ParseProject(fmt.Sprintf("seed-%d", seed), []byte(a.String()))
	if err != nil {
		panic(err) // the generator is wrong
	}
	return p
}

const script = "c.sh"

// The names in a context that the steps know.
var (
	present     = []string{"a", "b.txt", script, "d/e", "d/f.txt", "d/g/h", "i/j.txt", ".k"}
	absent      = []string{"x", "y.txt", "d/z", "i/sub/w.txt", "m/n"}
	directories = []string{".", "d", "d/g", "i", "i/sub", "m"}
)

type generator struct {
	*rand.Rand
	outputs int
}

func (g *generator) chance(n int) bool { return g.IntN(100) < n }

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

func (g *generator) dockerfile(times bool) string {
	var b strings.Builder
	stages := pick(g, 1, 1, 2, 2, 3)
	for i := range stages {
		from := "busybox:1"
		if i > 0 && g.chance(30) {
			from = fmt.Sprintf("s%d", g.IntN(i))
		}
		fmt.Fprintf(&b, "FROM %s AS s%d\nWORKDIR /w\n", from, i)
		b.WriteString(g.copy())
		if times && i == 0 {
			fmt.Fprintf(&b, "RUN mkdir -p /o; [ %s -nt %s ] && echo newer > /o/newer; find . -type f -newer %s | grep -v NOTES | sort > /o/found; true\n",
				pick(g, present...), pick(g, present...), pick(g, present...))
		}
		for range 1 + g.IntN(3) {
			b.WriteString(g.Run() + "\n")
			if g.chance(15) {
				b.WriteString(g.copy())
			}
		}
		if i > 0 {
			fmt.Fprintf(&b, "COPY --from=s%d %s\n", g.IntN(i), pick(g, "/o /from/", "/w /from/w", "/w/ ./"))
		}
		if g.chance(30) {
			b.WriteString(g.Run() + "\n")
		}
	}
	return b.String()
}

func (g *generator) copy() string {
	return pick(g, "COPY . .\n", "COPY . .\n", "COPY . .\n", "COPY . /w/\nCOPY d ./\n", "COPY *.txt c.sh ./\nCOPY d d\n",
		"COPY --chmod=750 . .\n", "COPY --link . /w\n", "COPY d i /w/\n",
		"COPY a b.txt NOTES ./\nCOPY i ./i\n", "COPY --chown=7:8 d /w/d\nCOPY . .\n")
}

// Run makes a RUN instruction.
func (g *generator) Run() string {
	if g.chance(10) {
		return fmt.Sprintf("RUN --mount=type=bind,target=/w/m %s", g.commands(2, ""))
	}
	return "RUN " + g.commands(1+g.IntN(4), "")
}

// commands are some commands of a shell, none of which can fail. Outputs of a script have names of their own.
func (g *generator) commands(n int, prefix string) string {
	all := []string{"mkdir -p /o"}
	for range n {
		all = append(all, g.command(prefix))
	}
	return strings.Join(append(all, "true"), "; ")
}

// file is a name that may be a file.
func (g *generator) file() string {
	if g.chance(25) {
		return pick(g, absent...)
	}
	return pick(g, present...)
}

func (g *generator) dir() string { return pick(g, directories...) }

// inner is a directory that is not the whole.
func (g *generator) inner() string { return pick(g, directories[1:]...) }

func (g *generator) command(prefix string) string {
	g.outputs++
	out := fmt.Sprintf("/o/%s%d", prefix, g.outputs)
	f, f2, d, in := g.file(), g.file(), g.dir(), g.inner()
	reads := []string{
		"cat " + f + " > " + out,
		"[ -" + pick(g, "e", "f", "d", "s", "x", "r", "L", "w") + " " + f + " ] && echo yes > " + out,
		"if [ -f " + f + " ]; then cat " + f + "; else cat " + f2 + "; fi > " + out,
		"ls -A " + d + " > " + out,
		"find " + d + " | sort > " + out,
		"find " + d + " -type " + pick(g, "f", "d", "l") + " | sort > " + out,
		"find " + d + " -type f -" + pick(g, "perm -100", "empty", "size -2") + " | sort > " + out,
		"for f in " + d + "/*.txt; do [ -f \"$f\" ] && cat \"$f\"; done > " + out,
		"echo " + d + "/* > " + out,
		"cp -r " + d + " " + out,
		"cp -a " + in + "/. " + out,
		"readlink " + f + " > " + out,
		"stat -c '%a %F' " + f + " > " + out,
		"grep -rl " + pick(g, "0", "1", "2", "a") + " " + d + " | sort > " + out,
		"tar cf - " + in + " | tar tf - | sort > " + out,
		"wc -c < " + f + " > " + out,
		"cmp -s " + f + " " + f2 + " && echo same > " + out,
		"sort " + f + " " + f2 + " > " + out,
		"head -c 3 " + f + " > " + out,
		"(cd " + d + " && ls) > " + out,
		"cat " + d + "/* > " + out,
		"for f in $(ls " + d + "); do [ -d " + d + "/$f ] && echo $f; done > " + out,
	}
	if prefix == "" { // the script does not run itself
		reads = append(reads, "sh ./"+script+" > "+out, "sh ./"+script+" > "+out)
	}
	writes := []string{
		"rm -f " + f, "rm -rf " + in, "rm -rf " + in + " && mkdir -p " + in, "rm -rf " + d + "/*",
		"mv " + f + " " + f2, "mv " + in + " " + g.file(), "cp " + f + " " + f2, "cp -a " + in + " " + g.inner(),
		"cp -r " + in + " copy-" + fmt.Sprint(g.outputs),
		"sed -i s/1/9/ " + f, "echo more >> " + f, "printf zz | dd of=" + f + " conv=notrunc bs=1 seek=1", "truncate -s 2 " + f, "touch " + f,
		"ln -sfn " + f2 + " " + f, "ln -f " + f + " " + f2, "mkdir -p " + in,
		"chmod " + pick(g, "700", "644", "755", "600") + " " + f, "chmod -R go-rwx " + in, "chown 3:4 " + f,
		"mkdir -p new/" + in + " && cp " + f + " new/" + in,
	}
	c := pick(g, reads...)
	if g.chance(40) {
		c = pick(g, writes...)
	}
	return strings.TrimSuffix("{ "+c, ";") + "; } 2>/dev/null"
}
