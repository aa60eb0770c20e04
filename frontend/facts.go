package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/util/flightcontrol"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/world"
)

// facts asks the gateway what the passes may know. What cannot be had is left out, and the passes refuse what depends on it.
func (r *rewriter) facts(ctx context.Context, bc *dockerui.Client, p *plan.Plan) *plan.Facts {
	f := &plan.Facts{BuildArgs: bc.BuildArgs, Target: bc.Target, Build: bc.BuildPlatforms[0], Targets: bc.TargetPlatforms, Named: map[string]bool{}}
	for k := range r.BuildOpts().Opts {
		if name, ok := strings.CutPrefix(k, "context:"); ok {
			name, _, _ = strings.Cut(name, "::")
			f.Named[name] = true
		}
	}
	f.Images = r.baseImages(ctx, bc, p, f)
	for _, name := range opt.Images(p, f, r.options) {
		if img, ok := f.Images[name]; ok {
			built, err := r.image(ctx, name, f.Build, bc)
			img.Build = err == nil && reflect.DeepEqual(built, img)
			f.Images[name] = img
		}
	}
	for known, round := 0, 0; round < opt.WantRounds; round++ {
		want := opt.Wants(p, f, r.options)
		if len(want) <= known { // it only grows
			break
		}
		known = len(want)
		f.Context = r.context(ctx, bc, want)
	}
	return f
}

// baseImages finds the configs of the images that the target builds on. An image whose platforms differ in what matters is left out.
func (r *rewriter) baseImages(ctx context.Context, bc *dockerui.Client, p *plan.Plan, f *plan.Facts) map[string]plan.Image {
	targets := f.Targets
	if len(targets) == 0 {
		targets = []ocispecs.Platform{f.Build}
	}
	var mu sync.Mutex
	images, differ, triggers := map[string]plan.Image{}, map[string]bool{}, map[string][]string{}
	eg, ctx := errgroup.WithContext(ctx)
	for _, target := range targets {
		one := *f
		one.Targets = []ocispecs.Platform{target}
		for _, st := range p.Live(&one) {
			base, name, ok := p.Resolve(st, &one)
			if base != nil || !ok || name == "scratch" || f.Replaced(name) || st.Def.Name != "" && f.Replaced(st.Def.Name) {
				continue
			}
			platform := target
			if st.Def.Platform != "" {
				v, ok := p.Global(&one).Expand(st.Def.Platform)
				parsed, err := platforms.Parse(v)
				if !ok || err != nil {
					continue
				}
				platform = platforms.Normalize(parsed)
			}
			eg.Go(func() error {
				img, err := r.image(ctx, name, platform, bc)
				mu.Lock()
				defer mu.Unlock()
				old, seen := images[name]
				if err != nil || seen && !reflect.DeepEqual(old, img) {
					differ[name] = true
				}
				images[name] = img
				triggers[name] = append(triggers[name], img.OnBuild...)
				return nil
			})
		}
	}
	eg.Wait()
	for name := range differ {
		delete(images, name)
		if list := triggers[name]; len(list) > 0 { // they may refer to stages; nothing else is known of an image that has some
			slices.Sort(list)
			images[name] = plan.Image{OnBuild: slices.Compact(list)}
		}
	}
	return images
}

func (r *rewriter) image(ctx context.Context, name string, platform ocispecs.Platform, bc *dockerui.Client) (plan.Image, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return plan.Image{}, err
	}
	full := reference.TagNameOnly(ref).String()
	prefix := "[internal]"
	if bc.MultiPlatformRequested {
		prefix = "[" + platforms.FormatAll(platform) + " internal]"
	}
	_, _, dt, err := r.images.ResolveImageConfig(ctx, full, sourceresolver.Opt{
		LogName:  fmt.Sprintf("%s load metadata for %s", prefix, full),
		ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &platform, ResolveMode: bc.ImageResolveMode.String()},
	})
	if err != nil {
		return plan.Image{}, err
	}
	var img dockerspec.DockerOCIImage
	if err := json.Unmarshal(dt, &img); err != nil {
		return plan.Image{}, fmt.Errorf("read config of %s: %w", name, err)
	}
	return plan.Image{Env: img.Config.Env, User: img.Config.User, WorkingDir: img.Config.WorkingDir, Shell: img.Config.Shell, OnBuild: img.Config.OnBuild}, nil
}

// imageCache is the gateway client with a memory for image configs.
type imageCache struct {
	client.Client
	g flightcontrol.CachedGroup[*resolved]
}

type resolved struct {
	ref    string
	digest digest.Digest
	config []byte
}

func newImageCache(c client.Client) *imageCache {
	ic := &imageCache{Client: c}
	ic.g.CacheError = true
	return ic
}

func (c *imageCache) ResolveImageConfig(ctx context.Context, ref string, o sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	key, err := json.Marshal([]any{ref, o})
	if err != nil {
		return "", "", nil, err
	}
	res, err := c.g.Do(ctx, string(key), func(ctx context.Context) (*resolved, error) {
		ref, dgst, config, err := c.Client.ResolveImageConfig(ctx, ref, o)
		if err != nil {
			return nil, err
		}
		return &resolved{ref, dgst, config}, nil
	})
	if err != nil {
		return "", "", nil, err
	}
	return res.ref, res.digest, res.config, nil
}

// factBytes is the size up to which a file's content is a fact.
const factBytes = 1 << 20

// context reads what is asked of the build context. Only these paths are transferred.
func (r *rewriter) context(ctx context.Context, bc *dockerui.Client, want []string) *plan.Context {
	ctx, cancel := context.WithTimeout(ctx, factTime)
	defer cancel()
	st, err := bc.MainContext(ctx, llb.FollowPaths(want), llb.SharedKeyHint("optbuild-facts"), dockerui.WithInternalName("look at the build context"))
	if err != nil {
		return nil
	}
	def, err := st.Marshal(ctx)
	if err != nil {
		return nil
	}
	res, err := r.Client.Solve(ctx, client.SolveRequest{Definition: def.ToPB()})
	if err != nil {
		return nil
	}
	ref, err := res.SingleRef()
	if err != nil || ref == nil {
		return nil
	}
	c := &plan.Context{Paths: map[string]plan.Path{}}
	for _, name := range withParents(want) {
		if p, ok := contextPath(ctx, ref, name); ok {
			c.Paths[name] = p
		}
	}
	return c
}

// withParents are the paths that are no patterns, and the directories that they are in, which come with them.
func withParents(want []string) []string {
	var names []string
	for _, name := range want {
		for name = path.Clean(name); name != "." && !strings.ContainsAny(name, "*?["); name = path.Dir(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// contextPath is one path, without following symlinks in its last element; ok is false if nothing is known of it.
func contextPath(ctx context.Context, ref client.Reference, name string) (plan.Path, bool) {
	dir, base := path.Split(path.Clean("/" + name))
	list, err := ref.ReadDir(ctx, client.ReadDirRequest{Path: dir, IncludePattern: base})
	if err != nil {
		return plan.Path{}, isAbsent(err)
	}
	for _, st := range list {
		if path.Base(st.Path) != base {
			continue
		}
		p := plan.Path{Exists: true, Mode: fs.FileMode(st.Mode), Link: st.Linkname, Xattrs: len(st.Xattrs) > 0}
		if p.Mode.IsRegular() && st.Size <= factBytes {
			if p.Data, err = ref.ReadFile(ctx, client.ReadRequest{Filename: name}); err != nil {
				return plan.Path{}, false
			}
			if p.Data == nil {
				p.Data = []byte{}
			}
			p.Archive, p.Sniffed = world.IsArchive(bytes.NewReader(p.Data))
		}
		return p, true
	}
	return plan.Path{}, true
}

func isAbsent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || strings.Contains(err.Error(), "no such file or directory") || strings.Contains(err.Error(), "not a directory")
}
