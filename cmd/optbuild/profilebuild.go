package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/profile"
	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/request"
	"github.com/optbuild/optbuild/builder/store"
)

// This file is about what a build does with profiles.

const (
	profileAuto = "auto"
	profileOff  = "off"
)

func profileFlag() cli.Flag {
	return &cli.StringFlag{Name: "profile", Value: profileAuto, Usage: "what the image's program uses, which is never left out and comes first in eStargz layers: auto (the profile that `optbuild profile` made of the image), off, or a profile's `FILE`"}
}

// useProfiles tells the request which files come first in the image's layers, and which of them are left out in no case, by the profile that --profile asks for. What it finds by itself is
// looked for at registries only if layers will be eStargz; and it is no error if that can't be read: an image without a profile is as good, if slower to start.
func useProfiles(c *cli.Context, r *request.Request) error {
	profiles, err := profilesOf(c)
	if err != nil {
		return err
	}
	for _, p := range profiles {
		r.Kept = append(r.Kept, p.Used()...)
	}
	if lazyOutput(c) {
		r.Prioritized = profile.Merge(profiles...)
	}
	return nil
}

func profilesOf(c *cli.Context) ([]*profile.Profile, error) {
	value, lazy := c.String("profile"), lazyOutput(c)
	switch {
	case value == profileOff:
		return nil, nil
	case value != profileAuto && value != "":
		if !lazy && stripOf(c) == "off" {
			warn("--profile has no effect: layers are not pulled lazily (--compression=estargz), and nothing is left out of them (--strip)")
			return nil, nil
		}
		f, err := os.Open(value)
		if err != nil {
			return nil, usagef("--profile: %w", err)
		}
		defer f.Close()
		p, err := profile.ReadFrom(f)
		if err != nil {
			return nil, usagef("--profile %s: %w", value, err)
		}
		return []*profile.Profile{p}, nil
	}
	var found []*profile.Profile
	for _, p := range buildPlatforms(c) {
		one, where, err := findProfile(c, p, lazy)
		switch {
		case err == nil:
			found = append(found, one)
			if lazy && !c.Bool("quiet") {
				files, _ := one.Read()
				warn(fmt.Sprintf("the %d files that the program reads when it starts come first in its layers, by the profile of %s %s (--profile=off leaves the order alone)", files, store.Familiar(one.Image), where))
			}
		case c.Context.Err() != nil:
			return nil, err
		case !errors.Is(err, profile.ErrNone):
			warn("no profile is used: " + messageFor(err))
		}
	}
	return found, nil
}

// lazyOutput tells whether an output's layers can be pulled lazily, with files that come first.
func lazyOutput(c *cli.Context) bool {
	lazy := func(s string) bool { f, err := compress.Parse(s); return err == nil && f == compress.EStargz }
	named := func(output string) bool {
		return slices.ContainsFunc(strings.Split(output, ","), func(attr string) bool {
			v, ok := strings.CutPrefix(attr, "compression=")
			return ok && lazy(v)
		})
	}
	return lazy(c.String("compression")) || slices.ContainsFunc(c.StringSlice("output"), named)
}

func buildPlatforms(c *cli.Context) (list []ocispecs.Platform) {
	for _, v := range platformValues(c.StringSlice("platform")) {
		if p, err := platforms.Parse(v); err == nil { // else the build says so
			list = append(list, platforms.Normalize(p))
		}
	}
	if list == nil {
		list = append(list, platforms.Normalize(platforms.DefaultSpec()))
	}
	return list
}

// findProfile looks for the profile of one of the build's names: here, and, if the build pushes and registries may be asked, beside what has that name at its registry now.
func findProfile(c *cli.Context, p ocispecs.Platform, ask bool) (_ *profile.Profile, where string, err error) {
	root, err := stateDir(c)
	if err != nil {
		return nil, "", err
	}
	kept := profileStore(root)
	names := c.StringSlice("tag")
	for _, name := range names {
		named, err := store.ParseName(name)
		if err != nil {
			continue // the build says so
		}
		found, err := kept.Find(named, platforms.FormatAll(p))
		if !errors.Is(err, profile.ErrNone) {
			return found, "that is kept here", err
		}
	}
	if !ask || !pushes(c) {
		return nil, "", profile.ErrNone
	}
	registries, err := registryConfig(c)
	if err != nil {
		return nil, "", err
	}
	r := profile.NewRegistry(registry.ClientHosts(registries))
	for _, name := range names {
		named, err := store.ParseName(name)
		if err != nil {
			continue
		}
		found, err := r.Find(c.Context, named, p)
		if !errors.Is(err, profile.ErrNone) {
			return found, "at its registry", err
		}
	}
	return nil, "", profile.ErrNone
}

func pushes(c *cli.Context) bool {
	return c.Bool("push") || slices.ContainsFunc(c.StringSlice("output"), func(o string) bool {
		fields := strings.Split(o, ",")
		return slices.Contains(fields, "type=registry") || slices.Contains(fields, "push=true")
	})
}
