package request

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/compress"
)

// describe prints everything that a solve was told, one line each, in order.
func describe(s *Solve) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(s.FrontendAttrs)) {
		if k == compress.AttrExport { // repeats what the output is told
			continue
		}
		fmt.Fprintf(&b, "%s=%s\n", k, s.FrontendAttrs[k])
	}
	attrs := func(kind, typ string, m map[string]string) {
		fmt.Fprintf(&b, "%s %s", kind, typ)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(&b, " %s=%s", k, m[k])
		}
		b.WriteByte('\n')
	}
	for _, e := range s.CacheImports {
		attrs("from", e.Type, e.Attrs)
	}
	for _, e := range s.CacheExports {
		attrs("to", e.Type, e.Attrs)
	}
	for _, e := range s.Exports {
		attrs("output", e.Type+where(e), e.Attrs)
	}
	for _, e := range s.AllowedEntitlements {
		fmt.Fprintf(&b, "allow %s\n", e)
	}
	for _, name := range slices.Sorted(maps.Keys(s.LocalMounts)) {
		fmt.Fprintf(&b, "local %s\n", name)
	}
	for _, name := range slices.Sorted(maps.Keys(s.OCIStores)) {
		fmt.Fprintf(&b, "layout %s\n", name)
	}
	if s.Call != nil {
		fmt.Fprintf(&b, "call %+v\n", *s.Call)
	}
	for _, w := range s.Warnings {
		fmt.Fprintf(&b, "warning %s\n", w)
	}
	return b.String()
}

func where(e client.ExportEntry) string {
	switch {
	case e.OutputDir != "":
		return " dir"
	case e.Output != nil:
		return " stream"
	}
	return ""
}

// defaults are the lines that every build of a local directory with a Dockerfile and a tag has.
const defaults = "filename=Dockerfile\nimage-resolve-mode=local\n"

// newContext makes a directory with a Dockerfile and goes there.
func newContext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "Dockerfile", "FROM scratch\n")
	return dir
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMeaning(t *testing.T) {
	newContext(t)
	write(t, "secret.txt", "s")
	write(t, "sub/x", "x")
	write(t, "layout/index.json", `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":2}]}`)
	write(t, "layout/blobs/sha256/x", "")
	t.Setenv("IN_ENVIRONMENT", "v")
	const d = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	const local = "local context\nlocal dockerfile\n"
	const image = "output image name=docker.io/library/app:latest\n"
	for name, test := range map[string]struct {
		r    Request
		want string // without the defaults, the local mounts and the output image where they are as always
		all  bool   // want is everything
	}{
		"tags":                       {Request{Tags: []string{"app", "localhost:5000/a/b:1"}}, defaults + "output image name=docker.io/library/app:latest,localhost:5000/a/b:1\n" + local + "", true},
		"no tag":                     {Request{Tags: []string{}}, defaults + "output image\n" + local + "warning no tag and no output: the result stays in the build cache only (keep the image with -t NAME)\n", true},
		"build args":                 {Request{BuildArgs: []string{"A=1", "B=", "C=x=y", "IN_ENVIRONMENT", "NOWHERE"}}, "build-arg:A=1\nbuild-arg:B=\nbuild-arg:C=x=y\nbuild-arg:IN_ENVIRONMENT=v\n", false},
		"epoch from the environment": {Request{Environ: []string{"SOURCE_DATE_EPOCH=7"}}, "build-arg:SOURCE_DATE_EPOCH=7\noutput image name=docker.io/library/app:latest rewrite-timestamp=true\n", false},
		"epoch as an argument":       {Request{Environ: []string{"SOURCE_DATE_EPOCH=7"}, BuildArgs: []string{"SOURCE_DATE_EPOCH=8"}}, "build-arg:SOURCE_DATE_EPOCH=8\noutput image name=docker.io/library/app:latest rewrite-timestamp=true\n", false},
		"proxies": {Request{Proxies: map[string]string{"HTTP_PROXY": "a", "http_proxy": "a", "NO_PROXY": "n"}, BuildArgs: []string{"http_proxy=b", "NO_PROXY"}},
			"build-arg:NO_PROXY=n\nbuild-arg:http_proxy=b\n", false},
		"syntax":               {Request{BuildArgs: []string{"BUILDKIT_SYNTAX=example.com/f:1 x"}}, "build-arg:BUILDKIT_SYNTAX=example.com/f:1 x\n", false},
		"labels":               {Request{Labels: []string{"a=1", "b", "c=x=y"}}, "label:a=1\nlabel:b=\nlabel:c=x=y\n", false},
		"target":               {Request{Target: "t"}, "target=t\n", false},
		"strict":               {Request{Strict: true}, "output image name=docker.io/library/app:latest optbuild.strict=true\n", false},
		"partial":              {Request{Partial: "example.com/app:1", Tags: []string{}}, "output image name=example.com/app name-canonical=true push=true push-by-digest=true store=false\n", false},
		"platforms":            {Request{Platforms: []string{"linux/amd64,linux/arm64", "linux/arm/v7", "linux/aarch64"}}, "platform=linux/amd64,linux/arm64,linux/arm/v7\n", false},
		"no cache":             {Request{NoCache: true}, "no-cache=\n", false},
		"no cache for stages":  {Request{NoCacheFilter: []string{"a,b", "c"}}, "no-cache=a,b,c\n", false},
		"network host":         {Request{Network: "host"}, "allow network.host\nforce-network-mode=host\n", false},
		"network none":         {Request{Network: "none"}, "force-network-mode=none\n", false},
		"allow":                {Request{Allow: []string{"network.host", "device=vendor.com/x=y,alias=z"}}, "allow device=vendor.com/x=y,alias=z\nallow network.host\n", false},
		"hosts":                {Request{AddHosts: []string{"a:1.2.3.4,b:5.6.7.8", "c=::1", "d=[::2]", `"e=1.1.1.1,2.2.2.2"`}}, "add-hosts=a=1.2.3.4,b=5.6.7.8,c=::1,d=::2,e=1.1.1.1,e=2.2.2.2\n", false},
		"shm":                  {Request{ShmSize: "64m"}, "shm-size=67108864\n", false},
		"ulimits":              {Request{Ulimits: []string{"nofile=1:2", "core=0", "nofile=3:4"}}, "ulimit=core=0:0,nofile=3:4\n", false},
		"resources":            {Request{Resources: []string{"memory=1g", "memory-swap=-1", "cpu-shares=5", "cpu-quota=7", "cpu-period=6", "cpuset-cpus=0-1", "cpuset-mems=0"}}, "cpuperiod=6\ncpuquota=7\ncpusetcpus=0-1\ncpusetmems=0\ncpushares=5\nmemory=1073741824\nmemswap=-1\n", false},
		"cgroup parent":        {Request{CgroupParent: "p"}, "cgroup-parent=p\n", false},
		"cache from":           {Request{CacheFrom: []string{"a/b,c/d:e", "type=local,src=sub", "type=local,src=gone", "type=registry,ref=r"}}, "warning --cache-from type=local,src=gone: ignored, there is no directory gone\nfrom local src=sub\nfrom registry ref=a/b\nfrom registry ref=c/d:e\nfrom registry ref=r\n", false},
		"cache to":             {Request{CacheTo: []string{"a/b", "type=inline", "type=local,dest=x,mode=max"}}, "to inline\nto local dest=x mode=max\nto registry ref=a/b\n", false},
		"inline cache by arg":  {Request{BuildArgs: []string{"BUILDKIT_INLINE_CACHE=1"}}, "build-arg:BUILDKIT_INLINE_CACHE=1\nto inline\n", false},
		"provenance":           {Request{Provenance: "mode=max", AttestIn: "index"}, "attest:provenance=type=provenance,mode=max\n", false},
		"provenance on":        {Request{Provenance: "true", AttestIn: "index"}, "attest:provenance=type=provenance\n", false},
		"attested":             {Request{Provenance: "true", Tags: []string{"a/b"}, Push: true, Outputs: []string{"type=oci,dest=x"}}, "attest:provenance=type=provenance\noutput oci stream name=docker.io/a/b:latest\noutput image name=docker.io/a/b:latest optbuild.attest-beside=true push=true store=false\n", false},
		"attested in index":    {Request{Provenance: "true", AttestIn: "index", Tags: []string{"a/b"}, Push: true}, "attest:provenance=type=provenance\noutput image name=docker.io/a/b:latest push=true store=false\n", false},
		"provenance off":       {Request{Provenance: "false", SBOM: "false"}, "", false},
		"attest counts more":   {Request{Attest: []string{"type=provenance,mode=min"}, Provenance: "false", AttestIn: "index"}, "attest:provenance=type=provenance,mode=min\n", false},
		"sbom":                 {Request{SBOM: "generator=g", AttestIn: "index"}, "attest:sbom=type=sbom,generator=g\n", false},
		"sbom with a comma":    {Request{SBOM: `"a=b,c"`, AttestIn: "index"}, "attest:sbom=type=sbom,\"a=b,c\"\n", false},
		"pull":                 {Request{Pull: true, Tags: []string{"app"}}, "filename=Dockerfile\nimage-resolve-mode=pull\n" + image + local + "", true},
		"call check":           {Request{Call: "check,format=json"}, "call {Method:lint JSON:true IgnoreStatus:false}\nfilename=Dockerfile\nimage-resolve-mode=local\nlocal context\nlocal dockerfile\nrequestid=frontend.lint\n", true},
		"call any order":       {Request{Call: "ignorestatus=true,outline"}, "call {Method:outline JSON:false IgnoreStatus:true}\nfilename=Dockerfile\nimage-resolve-mode=local\nlocal context\nlocal dockerfile\nrequestid=frontend.outline\n", true},
		"annotations":          {Request{Annotations: []string{"a=1", "manifest[linux/arm64],index:b=2"}}, "output image annotation-index.b=2 annotation-manifest[linux/arm64].b=2 annotation.a=1 name=docker.io/library/app:latest\n", false},
		"output directory":     {Request{Outputs: []string{"new/dir"}}, "output tar stream\n", false},
		"output name with =":   {Request{Outputs: []string{"a=b"}}, "output tar stream\n", false},
		"output stdout":        {Request{Outputs: []string{"-"}}, "output tar stream\n", false},
		"output oci":           {Request{Outputs: []string{"type=oci,dest=o.tar,compression=zstd"}}, "output oci stream compression=zstd name=docker.io/library/app:latest\n", false},
		"output oci directory": {Request{Outputs: []string{"type=oci,tar=false,dest=o"}}, "output oci dir name=docker.io/library/app:latest tar=false\n", false},
		"output several":       {Request{Outputs: []string{"type=local,dest=d", "type=tar,dest=t.tar", "type=cacheonly"}}, "output tar stream\noutput tar stream\n", false},
		"output registry":      {Request{Outputs: []string{"type=registry"}}, "output image name=docker.io/library/app:latest push=true store=false\n", false},
		"push":                 {Request{Push: true}, "output image name=docker.io/library/app:latest push=true store=false\n", false},
		"push an image":        {Request{Push: true, Outputs: []string{"type=image,oci-mediatypes=true"}}, "output image name=docker.io/library/app:latest oci-mediatypes=true push=true\n", false},
		"push and directory":   {Request{Push: true, Outputs: []string{"d"}}, "output image name=docker.io/library/app:latest push=true store=false\noutput tar stream\n", false},
		"load":                 {Request{Load: true}, "output docker stream name=docker.io/library/app:latest\n", false},
		"load once":            {Request{Load: true, Outputs: []string{"type=docker"}}, "output docker stream name=docker.io/library/app:latest\n", false},
		"load beside a file":   {Request{Load: true, Outputs: []string{"type=docker,dest=x.tar"}}, "output docker stream name=docker.io/library/app:latest\noutput docker stream name=docker.io/library/app:latest\n", false},
		"delete below":         {Request{Outputs: []string{"type=local,dest=sub,mode=delete"}}, "output tar stream\n", false},
		"delete elsewhere":     {Request{Outputs: []string{"type=local,dest=.,mode=delete"}, Allow: []string{"buildx.local.delete"}}, "output tar stream\n", false},
		"named contexts": {Request{BuildContexts: []string{"alpine=docker-image://alpine:3", "docker.io/library/busybox:latest=sub", "context=sub", "l=oci-layout://layout:1", "m=oci-layout://layout@" + d, "g=https://example.com/x.git?ref=y"}},
			"context:alpine=docker-image://alpine:3\ncontext:busybox=local:busybox\ncontext:context=local:_context\ncontext:g=https://example.com/x.git?ref=y\ncontext:l=oci-layout://layout0:1@" + d + "\ncontext:m=oci-layout://layout1@" + d + "\n" +
				"frontend.caps=moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.gitquerystring+forward\nlayout layout0\nlayout layout1\nlocal _context\nlocal busybox\n", false},
		"git":               {Request{Context: "https://example.com/x.git#main:sub", File: "a/Dockerfile"}, "context=https://example.com/x.git#main:sub\nfilename=a/Dockerfile\nimage-resolve-mode=local\n" + image, true},
		"git, Dockerfile -": {Request{Context: "https://example.com/x.git", File: "-", Stdin: strings.NewReader("FROM x")}, "context=https://example.com/x.git\ndockerfilekey=dockerfile\nfilename=Dockerfile\nimage-resolve-mode=local\nlocal dockerfile\n" + image, true},
		"Dockerfile -":      {Request{File: "-", Stdin: strings.NewReader("FROM x")}, "", false},
		"context -":         {Request{Context: "-", Stdin: strings.NewReader("FROM x")}, "dockerfilekey=dockerfile\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.r
			if r.Context == "" {
				r.Context = "."
			}
			if r.Tags == nil {
				r.Tags = []string{"app"}
			}
			if r.Environ == nil {
				r.Environ = os.Environ()
			}
			r.Stdout, r.Loader = io.Discard, func() (func() (io.WriteCloser, error), error) { return nil, nil }
			s, err := New(t.Context(), r, "dockerfile.v0")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Discard()
			got, want := sortLines(strings.ReplaceAll(describe(s), " compression=gzip", "")), test.want // which images have as always
			if !test.all {
				want += defaults + local
				if !strings.Contains(want, "output ") {
					want += image + ""
				}
			}
			if want = sortLines(want); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func sortLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

func TestRefused(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	dir := newContext(t)
	write(t, "file", "x")
	write(t, "sub/Dockerfile", "FROM x\n")
	for _, d := range []string{"b", "c", "e"} {
		write(t, "pipes/"+d+"/Dockerfile", "FROM x\n")
	}
	for _, pipe := range []string{"pipes/a/Dockerfile", "pipes/b/.dockerignore", "pipes/c/Dockerfile.dockerignore"} {
		os.MkdirAll(filepath.Dir(pipe), 0o755)
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"pipes/d/Dockerfile", "pipes/e/Dockerfile.dockerignore"} {
		os.MkdirAll(filepath.Dir(link), 0o755)
		if err := os.Symlink("/dev/zero", link); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		r    Request
		want string
		flag bool // a wrong flag, as opposed to something wrong with the files
	}{
		"build arg":              {Request{BuildArgs: []string{"=x"}}, "--build-arg =x: is not NAME=VALUE", true},
		"empty syntax":           {Request{BuildArgs: []string{"BUILDKIT_SYNTAX="}}, "--build-arg BUILDKIT_SYNTAX=: is empty; name a frontend image", true},
		"label":                  {Request{Labels: []string{"=x"}}, "--label =x: is not KEY=VALUE", true},
		"partial, tag":           {Request{Partial: "app", Tags: []string{"app"}}, `--partial app: says the name; --tag and --partial exclude each other`, true},
		"partial, push":          {Request{Partial: "app", Push: true}, `--partial app: is the output; --output, --push, --load and --partial exclude each other`, true},
		"partial, digest":        {Request{Partial: "app@sha256:" + strings.Repeat("0", 64)}, `--partial app@sha256:` + strings.Repeat("0", 64) + `: names a digest; a tag is wanted`, true},
		"platform":               {Request{Platforms: []string{"a/b/c/d"}}, `--platform a/b/c/d: is not os/arch[/variant]: "a/b/c/d": cannot parse platform specifier: invalid argument`, true},
		"tag":                    {Request{Tags: []string{"a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}, "--tag a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: names a digest; a tag is wanted", true},
		"both no-cache":          {Request{NoCache: true, NoCacheFilter: []string{"a"}}, "--no-cache-filter a: and --no-cache exclude each other", true},
		"network":                {Request{Network: "bridge"}, "--network bridge: is not default, host or none", true},
		"allow":                  {Request{Allow: []string{"all"}}, "--allow all: is not network.host, security.insecure, device or buildx.local.delete", true},
		"host":                   {Request{AddHosts: []string{"a"}}, "--add-host a: is not HOST:IP or HOST=IP", true},
		"address":                {Request{AddHosts: []string{"a:b"}}, `--add-host a:b: "b" is not an IP address`, true},
		"shm":                    {Request{ShmSize: "x"}, "--shm-size x: is not a size such as 64m", true},
		"ulimit":                 {Request{Ulimits: []string{"x"}}, "--ulimit x: is not TYPE=SOFT[:HARD]: invalid ulimit argument: x", true},
		"resource":               {Request{Resources: []string{"disk=1"}}, "--resource disk=1: is not memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems", true},
		"cache type":             {Request{CacheTo: []string{"type=s4"}}, `--cache-to type=s4: type "s4" is not one of registry, inline, local, gha, s3, azblob`, true},
		"cache type, secret":     {Request{CacheFrom: []string{"type=s4,token=geheim,Secret_Access_Key=geheim,name=x"}}, `--cache-from type=s4,token=…,Secret_Access_Key=…,name=x: type "s4" is not one of registry, local, gha, s3, azblob`, true},
		"cache without source":   {Request{CacheFrom: []string{"type=local"}}, "--cache-from type=local: src=… is missing", true},
		"cache mode":             {Request{CacheTo: []string{"type=inline,mode=x"}}, "--cache-to type=inline,mode=x: mode is min or max", true},
		"attest":                 {Request{Attest: []string{"type=x"}}, "--attest type=x: type is provenance or sbom", true},
		"attest in":              {Request{AttestIn: "x"}, "--attest-in x: is not referrer or index", true},
		"annotation":             {Request{Annotations: []string{"layer:a=b"}}, `--annotation layer:a=b: type "layer" is not manifest, index, manifest-descriptor or index-descriptor`, true},
		"call":                   {Request{Call: "chekc"}, "--call chekc: is not build, check, outline or targets", true},
		"secret without id":      {Request{Secrets: []string{"src=file"}}, "--secret src=file: needs an id: id=NAME[,src=FILE|,env=VARIABLE]", true},
		"secret without a file":  {Request{Secrets: []string{"id=a,src=gone"}}, "--secret id=a,src=gone: file gone does not exist", true},
		"secret of nothing":      {Request{Secrets: []string{"id=NOT_SET"}}, "--secret id=NOT_SET: file NOT_SET does not exist", true},
		"secret of a type":       {Request{Secrets: []string{"id=a,type=x"}}, `--secret id=a,type=x: unsupported secret type "x"`, true},
		"output type":            {Request{Outputs: []string{"type=x"}}, `--output type=x: type "x" is not image, registry, local, tar, oci, docker or cacheonly`, true},
		"output without type":    {Request{Outputs: []string{"dest=x,a=b"}}, "--output dest=x,a=b: type=… is missing", true},
		"local without dest":     {Request{Outputs: []string{"type=local"}}, "--output type=local: needs a directory: dest=DIR", true},
		"two to stdout":          {Request{Outputs: []string{"-", "type=oci"}}, "--output dest=-: only one output can go to standard output", true},
		"terminal":               {Request{Outputs: []string{"-"}, Terminal: true}, "--output -: an archive is not written to a terminal: dest=FILE, or redirect standard output", true},
		"delete elsewhere":       {Request{Outputs: []string{"type=local,dest=..,mode=delete"}}, "--output type=local,dest=..,mode=delete: deletes what .. has, which is not below the current directory: --allow buildx.local.delete", true},
		"push without a name":    {Request{Push: true}, "--push: a push needs a name: -t REGISTRY/REPOSITORY:TAG", true},
		"image id of an archive": {Request{IIDFile: "id", Outputs: []string{"out"}}, "--iidfile id: an output of files has no image id", true},
		"load nowhere":           {Request{Load: true}, "no engine to load the image into is known: name a file with dest=FILE", false},
		"named context":          {Request{BuildContexts: []string{"a"}}, "--build-context a: is not NAME=PATH, NAME=docker-image://REF, NAME=oci-layout://PATH or NAME=URL", true},
		"named context's name":   {Request{BuildContexts: []string{"A=sub"}}, "--build-context A=sub: A is no name for a context: invalid reference format: repository name (library/A) must be lowercase", true},
		"named context gone":     {Request{BuildContexts: []string{"a=gone"}}, "--build-context a=gone: gone: the build context does not exist", true},
		"layout gone":            {Request{BuildContexts: []string{"a=oci-layout://gone"}}, "--build-context a=oci-layout://gone: gone: the build context does not exist", true},
		"no layout":              {Request{BuildContexts: []string{"a=oci-layout://sub"}}, `--build-context a=oci-layout://sub: sub is not an image layout: it has no index.json`, true},
		"stdin twice":            {Request{Context: "-", File: "-"}, "--file -: standard input can be the context or the Dockerfile, not both", true},
		"Dockerfile twice":       {Request{Context: "-", File: "x", Stdin: strings.NewReader("FROM x")}, "--file x: standard input is a Dockerfile already", true},
		"cache in a directory":   {Request{CacheTo: []string{"/tmp/cache"}}, "--cache-to /tmp/cache: invalid reference format; for a directory: type=local,dest=/tmp/cache", true},
		"no agent":               {Request{SSH: []string{"default"}}, "--ssh default: no SSH agent is known, SSH_AUTH_SOCK is not set; start one (eval $(ssh-agent); ssh-add), or name a key: --ssh default=FILE", true},
		"key gone":               {Request{SSH: []string{"default=gone"}}, "--ssh default=gone: stat gone: no such file or directory", true},
		"git without an agent":   {Request{Context: "git@git.example:a/b.git"}, "git@git.example:a/b.git: is fetched over SSH, and no agent is known: SSH_AUTH_SOCK is not set", false},
		"context gone":           {Request{Context: "gone"}, "gone: the build context does not exist", false},
		"context a file":         {Request{Context: "file"}, "file: not a directory", false},
		"garbage on stdin":       {Request{Context: "-", Stdin: strings.NewReader("\x00\x01\x02")}, "-: standard input is neither an archive nor a Dockerfile", false},
		"nothing on stdin":       {Request{Context: "-", Stdin: strings.NewReader("")}, "-: nothing came on standard input", false},
		"Dockerfile gone":        {Request{File: "gone"}, dir + "/gone: there is no Dockerfile", false},
		"Dockerfile a directory": {Request{File: "sub"}, dir + "/sub: is a directory", false},
		"Dockerfile a pipe":      {Request{Context: "pipes/a"}, dir + "/pipes/a/Dockerfile: is a pipe", false},
		"ignore file a pipe":     {Request{Context: "pipes/b"}, dir + "/pipes/b/.dockerignore: is a pipe", false},
		"own ignore file a pipe": {Request{Context: "pipes/c"}, dir + "/pipes/c/Dockerfile.dockerignore: is a pipe", false},
		"Dockerfile endless":     {Request{Context: "pipes/d"}, dir + "/pipes/d/Dockerfile: is larger than 16 MB", false},
		"ignore file endless":    {Request{Context: "pipes/e"}, dir + "/pipes/e/Dockerfile.dockerignore: is larger than 16 MB", false},
		"named file endless":     {Request{File: "/dev/zero"}, "/dev/zero: is larger than 16 MB", false},
		"file for a directory":   {Request{Outputs: []string{"file"}}, "file: not a directory", false},
		"directory for a file":   {Request{Outputs: []string{"type=tar,dest=sub"}}, "sub: is a directory", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.r
			if r.Context == "" {
				r.Context = "."
			}
			r.Stdout = io.Discard
			s, err := New(t.Context(), r, "dockerfile.v0")
			if err == nil {
				s.Discard()
				t.Fatal("not refused")
			}
			var fe *FlagError
			if err.Error() != test.want || errors.As(err, &fe) != test.flag {
				t.Errorf("got  %v (flag: %v)\nwant %s (flag: %v)", err, errors.As(err, &fe), test.want, test.flag)
			}
		})
	}
	var left bytes.Buffer
	for _, e := range must(os.ReadDir(".")) {
		fmt.Fprintln(&left, e.Name())
	}
	if want := "Dockerfile\nfile\npipes\nsub\n"; left.String() != want {
		t.Errorf("refused requests left files:\n%s", left.String())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestDownloadInterrupted: a server that does not answer holds nobody up who wants to stop.
func TestDownloadInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
		close(ended)
	}))
	defer server.Close()
	_, err := New(ctx, Request{Context: t.TempDir(), File: server.URL, Stdout: io.Discard}, "dockerfile.v0")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
}
