package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/profile"
	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/store"
)

// This file is about where a profile goes that was made.

// profileStore is where profiles are kept in the state directory.
func profileStore(state string) profile.Store {
	return profile.NewStore(filepath.Join(state, "profiles"))
}

// deliver keeps the profile, and writes what was asked for.
func (p *profiling) deliver(c *cli.Context, made *madeProfile) error {
	root, err := stateDir(c)
	if err != nil {
		return err
	}
	s := profileStore(root)
	for _, name := range made.names {
		kept := *made.Profile
		kept.Image = name
		if err := s.Put(&kept); err != nil {
			return err
		}
	}
	if p.output != "" {
		b, err := profile.Encode(made.Profile)
		if err != nil {
			return err
		}
		if p.output == "-" {
			if _, err := c.App.Writer.Write(b); err != nil {
				return err
			}
		} else if err := replaceFile(p.output, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
			return fmt.Errorf("write profile: %w", err)
		}
	}
	attached, err := p.attachTo(c.Context, made)
	if err != nil {
		return err
	}
	if quiet := c.Bool("quiet") || c.String("progress") == "quiet"; quiet {
		return nil
	}
	files, bytes := made.Read()
	warn(fmt.Sprintf("%s read %d files with %s of the image (ended by: %s)", made.program, files, units.HumanSize(float64(bytes)), made.Until))
	switch kept := slices.Clone(made.names); {
	case attached != "":
		warn("the profile is beside the image at its registry (" + attached + "), and kept here: builds of that name with --compression=estargz use it")
	case len(kept) > 0:
		for i := range kept {
			kept[i] = store.Familiar(kept[i])
		}
		warn("the profile is kept here: builds of " + strings.Join(kept, ", ") + " with --compression=estargz use it")
	case p.output == "":
		warn("the profile is kept nowhere: name the image that is built (-t NAME), or a file (--output FILE)")
	}
	if p.output == "-" {
		return nil
	}
	for _, f := range made.Files {
		if f.Type == profile.Regular && f.Read {
			if _, err := fmt.Fprintf(c.App.Writer, "%s\t%s\n", units.HumanSize(float64(f.Bytes)), f.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// attachTo puts the profile beside the image at its registry, and says where that is; "" if it is not there, which is an error only if it had to be.
func (p *profiling) attachTo(ctx context.Context, made *madeProfile) (where string, err error) {
	if p.attach == attachOff {
		return "", nil
	}
	named, err := reference.ParseNormalizedNamed(p.image)
	if p.image == "" || err != nil {
		if p.attach == attachAlways {
			return "", errors.New("--attach always: what was built has no image at a registry yet")
		}
		return "", nil
	}
	if p.attach == attachAuto && made.local && strings.HasPrefix(named.Name(), "docker.io/library/") {
		return "", nil // a name without a registry, of an image that is here
	}
	r := profile.NewRegistry(registry.ClientHosts(p.registries))
	image, config, err := r.Manifest(ctx, named, p.platform)
	if err == nil && config != made.config {
		err = fmt.Errorf("%s is another image at its registry", reference.FamiliarString(named))
	}
	if err == nil {
		_, err = r.Attach(ctx, named, image, made.Profile, time.Now())
	}
	switch {
	case err == nil:
		return reference.FamiliarName(named) + "@" + image.Digest.String(), nil
	case p.attach == attachAlways:
		return "", err
	case !made.local && ctx.Err() == nil:
		warn("the profile could not be put beside the image: " + cmp.Or(messageFor(err), err.Error()))
	}
	return "", ctx.Err()
}
