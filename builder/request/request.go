// Package request says what the flags of `docker buildx build` mean: it turns them into BuildKit's solve options.
//
// What comes in is a [Request], the flags as the user wrote them; what goes out is a [Solve]: options for BuildKit's client,
// attachables for its session, and outputs that are staged beside their destination and appear whole or not at all. All
// checks that need no engine are made here, so that a wrong flag fails before anything is started. The package knows
// nothing of engines, terminals or of how a Dockerfile is lowered.
package request

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"github.com/optbuild/optbuild/builder/ledger"
)

// Request is one build as the command line describes it. Fields are named for flags.
type Request struct {
	// Context is a directory, a URL of a git repository or archive, or "-" for an archive or a Dockerfile on Stdin.
	Context string
	// File is the Dockerfile: a path, a URL, "-" for Stdin, or "" for Dockerfile in the context.
	File  string
	Stdin io.Reader

	Tags          []string
	BuildArgs     []string // NAME=VALUE, or NAME to take it from Environ
	Target        string
	Platforms     []string
	Labels        []string
	Annotations   []string
	Outputs       []string
	Push, Load    bool
	Strict        bool   // an image that starts a program of another platform is an error
	Partial       string // the name of an index that the result becomes a part of
	CacheFrom     []string
	CacheTo       []string
	Cache         string // REPO[,KEY=VALUE...]: read and written; "off"; "" leaves it to Environ and to the project's file
	NoCache       bool
	NoCacheFilter []string
	Pull          bool
	Secrets       []string
	SSH           []string
	BuildContexts []string
	Network       string
	AddHosts      []string
	ShmSize       string
	Ulimits       []string
	Resources     []string // KEY=VALUE: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
	Allow         []string
	CgroupParent  string
	Call          string // "", "build", "check", "lint", "outline", "targets", ... with ",format=json"
	Provenance    string
	SBOM          string
	Attest        []string
	AttestIn      string // AttestInReferrer, AttestInIndex; "" is the first
	Squash        string // which layers become one, see export.ParseSquash; "" is off
	Strip         string // what is left out of them, see strip.Parse; "" is off
	IIDFile       string // checked against the outputs only; the caller writes it
	// Compression is how layers are compressed: "", gzip, zstd, estargz, zstd:chunked or uncompressed; CompressionLevel "" or a number. ForceCompression is about those of the base image, too.
	Compression, CompressionLevel string
	ForceCompression              bool
	// Prioritized are files that come first in layers that can be pulled lazily, relative to the root.
	Prioritized []string
	// Kept are what strip does not leave out, since the image's program is known to use it; absolute paths.
	Kept     []string
	Frontend map[string]string // attributes for the frontend alone
	// Epoch is --epoch: "" or auto, off, git, or seconds since 1970.
	Epoch string
	// Exact says that nothing may differ from what docker makes, so that neither times nor modes follow git.
	Exact bool
	// KeepModes sends files with the modes that they have, also in a checkout of a git repository.
	KeepModes bool
	// FetchWhole fetches layers as a whole, also those that could be read in parts.
	FetchWhole bool

	// Environ is the environment of the user, as os.Environ gives it.
	Environ []string
	// Proxies are build arguments from docker's configuration, used unless the user sets them.
	Proxies map[string]string
	// Ledgers is the directory that remembers what was sent from local directories (see package ledger). "": nothing is
	// remembered, and every build sends its context as a whole.
	Ledgers string
	// Loader finds another engine, for Load, and returns how to open a stream into its image store. It is called only when
	// an output needs it.
	Loader func() (open func() (io.WriteCloser, error), err error)
	// Stdout receives outputs with dest=-.
	Stdout io.Writer
	// Terminal says that Stdout is one, so that no archive is written to it.
	Terminal bool
}

// Solve is a request that was found to be sound. Finish it with Commit or Discard.
type Solve struct {
	client.SolveOpt
	// Call is the subrequest instead of a build, nil for a build.
	Call *Call
	// Dockerfile is the local path of the Dockerfile, "" if it is remote or was read from a stream.
	Dockerfile string
	// ContextDir is the local directory of the context, "" if it is remote.
	ContextDir string
	// NamedDirs are the named contexts that are local directories.
	NamedDirs map[string]string
	// Partial is the index that what was pushed, by its digest, is to be joined to; nil if it is not.
	Partial reference.NamedTagged
	// LoadOwn is what is to be loaded, by OpenEngine, when the build is done; nil if that is nothing, or one of Exports.
	LoadOwn    *OwnPlatform
	OpenEngine func() (io.WriteCloser, error)
	// SSH says that the build is offered an SSH agent or keys.
	SSH bool
	// Warnings are lines for the user about flags that have no effect.
	Warnings []string
	// Notes are lines for the user about what was done by itself. Examine adds to them.
	Notes []string

	epoch       string            // what is left of --epoch for Examine
	datesItself bool              // the Dockerfile has a say in the epoch
	modes       map[string]*modes // of local directories, by their paths; nil keeps all modes
	shared      *sharedCache      // what is left of --cache for Examine; nil if there is none
	ledger      *ledger.Ledger
	stage       staging
	unreadable  chan error
	released    chan struct{} // closed by Discard
}

// Examine looks at the local directories: it asks git about them, chooses the engine's copies of them to use, and finds what of a shared cache is meant. Call it before the
// solve; it may run while an engine is started.
func (s *Solve) Examine(ctx context.Context) error {
	asked := make(chan error, 1)
	go func() { asked <- s.askGit(ctx) }()
	s.examineCopies()
	err := <-asked
	s.shareCache(ctx) // after: both add to Notes
	return err
}

// askGit asks about the context if modes or times depend on the answer, and about named contexts if modes do.
func (s *Solve) askGit(ctx context.Context) error {
	if s.ContextDir != "" && (s.modes != nil || s.epoch == epochGit || s.epoch == epochAuto && s.hasImage()) || s.epoch == epochGit {
		c, err := findCheckout(ctx, s.ContextDir)
		if m := s.modes[s.ContextDir]; m != nil && err == nil {
			m.settle(c)
		}
		if err := s.commitTime(ctx, c, err); err != nil {
			return err
		}
	}
	for dir, m := range s.modes {
		if dir == s.ContextDir {
			continue
		}
		if c, err := findCheckout(ctx, dir); err == nil {
			m.settle(c)
		}
	}
	return nil
}

// Changed is a line about what was changed in what was sent, "" if nothing was. Call it after the solve.
func (s *Solve) Changed() string { return said(slices.Collect(maps.Values(s.modes))) }

func (s *Solve) examineCopies() {
	s.ledger.Open()
	s.SharedKey = s.ledger.Key()
	for name := range s.NamedDirs {
		s.FrontendAttrs["sharedkey:localdir:"+name] = s.ledger.Key()
	}
}

// Sent says that the solve has ended, well or not, and that the engine had all that was sent to it; not so when the build
// was interrupted or the engine was lost. Without it the next build sends the context as a whole.
func (s *Solve) Sent() error { return s.ledger.Close(true) }

// Unreadable receives the first part of a context that can't be read. The build waits then, and has to be cancelled.
func (s *Solve) Unreadable() <-chan error { return s.unreadable }

func (s *Solve) report(err error) {
	select {
	case s.unreadable <- err:
	default: // there was one already
	}
}

// Commit puts the staged outputs into their places; call it when the build has succeeded.
func (s *Solve) Commit() error { return s.stage.commit() }

// Discard removes what was staged; after Commit it does nothing to the outputs. Call it always.
func (s *Solve) Discard() {
	close(s.released)
	_ = s.ledger.Close(false)
	s.stage.discard()
}

// FlagError is a flag whose value is wrong.
type FlagError struct {
	Flag, Value string
	Err         error
}

func (e *FlagError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("--%s: %v", e.Flag, e.Err)
	}
	return fmt.Sprintf("--%s %s: %v", e.Flag, e.Value, e.Err)
}
func (e *FlagError) Unwrap() error { return e.Err }

func flagErrorf(flag, value, format string, args ...any) error {
	return &FlagError{flag, value, fmt.Errorf(format, args...)}
}

// New checks the request and prepares what the solve needs; ctx bounds the download of a Dockerfile. frontend is the
// frontend's name.
func New(ctx context.Context, r Request, frontend string) (_ *Solve, err error) {
	s := &Solve{SolveOpt: client.SolveOpt{
		Frontend:      frontend,
		FrontendAttrs: maps.Clone(r.Frontend),
		LocalMounts:   map[string]fsutil.FS{},
	}, NamedDirs: map[string]string{}, ledger: ledger.New(r.Ledgers), unreadable: make(chan error, 1), released: make(chan struct{})}
	if s.FrontendAttrs == nil {
		s.FrontendAttrs = map[string]string{}
	}
	defer func() {
		if err != nil {
			s.Discard()
		}
	}()
	for _, f := range []func(*Solve) error{
		r.attrs, r.steps, r.question, r.caches, r.attestations, r.secrets, r.outputs, r.epoch,
	} {
		if err := f(s); err != nil {
			return nil, err
		}
	}
	if r.FetchWhole {
		s.FrontendAttrs[attrWhole] = "true"
	}
	if !r.KeepModes && !r.Exact {
		s.modes = map[string]*modes{}
	}
	if err := r.inputs(ctx, s); err != nil { // files after flags
		return nil, err
	}
	if err := r.sharedCache(s); err != nil { // the context may name it
		return nil, err
	}
	if text := s.dockerfileText(); text != nil {
		s.datesItself = bytes.Contains(text, []byte(sourceDateEpoch))
		if switchedOff(text, GitModes) {
			clear(s.modes)
		}
	}
	return s, nil
}
