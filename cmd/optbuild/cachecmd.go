package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/scope"
	"github.com/optbuild/optbuild/cache"
	"github.com/optbuild/optbuild/cache/remote"
)

func cacheCommand() *cli.Command {
	json := &cli.BoolFlag{Name: "json", Usage: "print JSON"}
	trust := &cli.StringFlag{Name: "trust", Usage: "`FILE` with public keys: only what one of them has signed counts"}
	sign := &cli.StringFlag{Name: "sign", Usage: "`FILE` with the private key that signs what is written"}
	scopes := &cli.StringSliceFlag{Name: "scope", Usage: "only this `SCOPE`"}
	return &cli.Command{
		Name:  "cache",
		Usage: "manage a cache that machines share at a registry (build --cache)",
		Subcommands: []*cli.Command{
			{
				Name: "ls", Aliases: []string{"list"}, Usage: "list the scopes of a cache: whose entries it has, how many, how old", ArgsUsage: "REPO",
				Flags: []cli.Flag{scopes, trust, json}, Action: runCacheLs,
			},
			{
				Name: "stat", Usage: "show what a cache has: entries by scope and kind, bytes, age", ArgsUsage: "REPO",
				Flags: []cli.Flag{scopes, trust, json}, Action: runCacheStat,
			},
			{
				Name: "gc", Usage: "remove entries that are too old or too much; builds may go on meanwhile", ArgsUsage: "REPO",
				Flags: []cli.Flag{
					scopes,
					&cli.StringFlag{Name: "max-age", Usage: "remove what was made, or used again, longer ago than this `AGE` (default: 30d)"},
					&cli.StringFlag{Name: "max-size", Usage: "most that the layers of a scope may take, the newest stay (default: 10GiB)"},
					&cli.IntFlag{Name: "keep-last", Usage: "keep `N` entries of each kind, the newest, whatever their age and size"},
					trust, sign, json,
				},
				Action: runCacheGC,
			},
			{
				Name: "rm", Aliases: []string{"remove"}, Usage: "remove scopes of a cache", ArgsUsage: "REPO",
				Flags: []cli.Flag{
					&cli.StringSliceFlag{Name: "scope", Usage: "remove this `SCOPE`"},
					&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "remove all scopes"},
					sign, json,
				},
				Action: runCacheRm,
			},
		},
		Action: groupAction,
	}
}

// openCache opens the cache that a command's argument names.
func openCache(c *cli.Context) (*remote.Store, error) {
	if c.NArg() != 1 {
		return nil, usagef("cache %s takes one argument, a repository (got %d)", c.Command.Name, c.NArg())
	}
	named, err := reference.ParseNormalizedNamed(c.Args().First())
	if err != nil {
		return nil, usagef("%s: is not REGISTRY/REPOSITORY: %w", c.Args().First(), err)
	}
	if !reference.IsNameOnly(named) {
		return nil, usagef("%s: a cache has tags of its own: leave the tag out (%s)", c.Args().First(), reference.FamiliarName(named))
	}
	o := remote.Options{Warn: warn}
	if file := c.String("trust"); file != "" {
		if o.TrustedKeys, err = remote.ReadTrustedKeys(file); err != nil {
			return nil, usagef("--trust: %w", err)
		}
	}
	if file := c.String("sign"); file != "" {
		if o.SigningKey, err = remote.ReadSigningKey(file); err != nil {
			return nil, usagef("--sign: %w", err)
		}
	}
	registries, err := registryConfig(c)
	if err != nil {
		return nil, err
	}
	return remote.Open(registry.ClientHosts(registries), named, o), nil
}

// chosenScopes are the scopes that --scope names, or all. One that is not there is an error.
func chosenScopes(ctx context.Context, c *cli.Context, s *remote.Store) ([]remote.Scope, error) {
	all, err := s.Scopes(ctx)
	if err != nil {
		return nil, err
	}
	names := c.StringSlice("scope")
	if len(names) == 0 {
		return all, nil
	}
	var out []remote.Scope
	for _, name := range names {
		i := slices.IndexFunc(all, func(s remote.Scope) bool { return s.Name == name })
		if i < 0 {
			return nil, &hinted{fmt.Errorf("cache %s has no scope %q", c.Args().First(), name), "optbuild cache ls " + c.Args().First() + " lists those that it has"}
		}
		if !slices.ContainsFunc(out, func(s remote.Scope) bool { return s.Name == name }) {
			out = append(out, all[i])
		}
	}
	return out, nil
}

// openScopes opens a cache and reads its scopes.
func openScopes(c *cli.Context) (*remote.Store, []remote.Scope, error) {
	s, err := openCache(c)
	if err != nil {
		return nil, nil, err
	}
	scopes, err := chosenScopes(c.Context, c, s)
	return s, scopes, err
}

// scopeRow is a scope, or the entries of a kind in it, as they are shown.
type scopeRow struct {
	Scope      string     `json:"scope"`
	Kind       string     `json:"kind,omitempty"`
	Entries    int        `json:"entries"`
	Bytes      int64      `json:"bytes"` // of distinct blobs: rows that share some do not add up
	IndexBytes int64      `json:"indexBytes,omitempty"`
	Newest     *time.Time `json:"newest,omitempty"`
	Oldest     *time.Time `json:"oldest,omitempty"`
	Problem    string     `json:"problem,omitempty"`
}

func rowOf(s remote.Scope) scopeRow {
	r := scopeRow{Scope: s.Name, Entries: len(s.Entries), Bytes: remote.Bytes(s.Entries), IndexBytes: s.IndexBytes, Problem: s.Problem}
	if n := len(s.Entries); n > 0 {
		r.Newest, r.Oldest = &s.Entries[0].Created, &s.Entries[n-1].Created
	}
	return r
}

// ages is how old the newest and the oldest entry are, as a table has it.
func (r scopeRow) ages(now time.Time) string {
	if r.Newest == nil {
		return "\t"
	}
	ago := func(t *time.Time) string { return units.HumanDuration(max(0, now.Sub(*t))) + " ago" }
	return ago(r.Newest) + "\t" + ago(r.Oldest)
}

func runCacheLs(c *cli.Context) error {
	_, scopes, err := openScopes(c)
	if err != nil {
		return err
	}
	rows := []scopeRow{}
	for _, s := range scopes {
		rows = append(rows, rowOf(s))
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, rows)
	}
	t := tabwriter.NewWriter(c.App.Writer, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "SCOPE\tENTRIES\tSIZE\tINDEX\tNEWEST\tOLDEST")
	for _, r := range rows {
		if r.Problem != "" {
			fmt.Fprintf(t, "%s\t-\t-\t-\t%s\t\n", r.Scope, r.Problem)
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", r.Scope, r.Entries, cache.FormatBytes(r.Bytes), cache.FormatBytes(r.IndexBytes), r.ages(time.Now()))
	}
	return t.Flush()
}

// cacheStat is what `cache stat` shows.
type cacheStat struct {
	Scopes     int        `json:"scopes"`
	Entries    int        `json:"entries"`
	Bytes      int64      `json:"bytes"` // of distinct blobs in all scopes
	IndexBytes int64      `json:"indexBytes"`
	Kinds      []scopeRow `json:"kinds"`
}

func runCacheStat(c *cli.Context) error {
	_, scopes, err := openScopes(c)
	if err != nil {
		return err
	}
	stat := cacheStat{Scopes: len(scopes), Kinds: []scopeRow{}}
	var all []remote.Entry
	for _, s := range scopes {
		all = append(all, s.Entries...)
		stat.IndexBytes += s.IndexBytes
		if s.Problem != "" {
			warn("scope " + s.Name + ": " + s.Problem)
		}
		kinds := map[string][]remote.Entry{}
		for _, e := range s.Entries {
			kinds[e.Kind] = append(kinds[e.Kind], e)
		}
		for kind, entries := range kinds {
			r := rowOf(remote.Scope{Name: s.Name, Entries: entries})
			r.Kind = kind
			stat.Kinds = append(stat.Kinds, r)
		}
	}
	stat.Entries, stat.Bytes = len(all), remote.Bytes(all)
	slices.SortFunc(stat.Kinds, func(a, b scopeRow) int { return strings.Compare(a.Scope+"\x00"+a.Kind, b.Scope+"\x00"+b.Kind) })
	if c.Bool("json") {
		return printJSON(c.App.Writer, stat)
	}
	return stat.print(c.App.Writer, time.Now())
}

func (s cacheStat) print(w io.Writer, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "SCOPE\tKIND\tENTRIES\tSIZE\tNEWEST\tOLDEST")
	for _, r := range s.Kinds {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", r.Scope, r.Kind, r.Entries, cache.FormatBytes(r.Bytes), r.ages(now))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "Total: %d in %s, %s; a build that reads all of them loads %s\n",
		s.Entries, count(s.Scopes, "scope"), cache.FormatBytes(s.Bytes), cache.FormatBytes(s.IndexBytes))
	return err
}

// cacheRules reads what gc is to keep.
func cacheRules(c *cli.Context) (b remote.Bounds, err error) {
	if v := c.String("max-age"); v != "" {
		if b.MaxAge, err = scope.ParseAge(v); err != nil {
			return b, usagef("--max-age: %w", err)
		}
	}
	if v := c.String("max-size"); v != "" {
		if b.MaxBytes, err = cache.ParseBytes(v); err != nil {
			return b, usagef("--max-size: %w", err)
		}
		if b.MaxBytes == 0 {
			return b, usagef("--max-size 0: keeps nothing: use cache rm")
		}
	}
	if b.KeepLast = c.Int("keep-last"); b.KeepLast < 0 {
		return b, usagef("--keep-last %d: is less than 0", b.KeepLast)
	}
	return b, nil
}

// collected is what gc did in a scope.
type collected struct {
	Scope   string         `json:"scope"`
	Removed map[string]int `json:"removed"` // entries, by kind
	Kept    int            `json:"kept"`
	// FreedBytes is what the registry can free at its next garbage collection, as far as no other scope has it.
	FreedBytes int64 `json:"freedBytes"`
}

func runCacheGC(c *cli.Context) error {
	rules, err := cacheRules(c)
	if err != nil {
		return err
	}
	s, scopes, err := openScopes(c)
	if err != nil {
		return err
	}
	done := []collected{}
	var failures []error
	for _, sc := range scopes {
		if sc.Problem != "" {
			warn("scope " + sc.Name + ": " + sc.Problem)
			continue
		}
		change, err := s.Collect(c.Context, sc.Name, rules)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		r := collected{Scope: sc.Name, Removed: map[string]int{}, Kept: change.Kept, FreedBytes: change.BeforeBytes - change.AfterBytes}
		for _, e := range change.Removed {
			r.Removed[e.Kind]++
		}
		done = append(done, r)
	}
	if err := printCollected(c.App.Writer, done, c.Bool("json")); err != nil {
		return err
	}
	return joinErrors(failures)
}

func printCollected(w io.Writer, done []collected, asJSON bool) error {
	if asJSON {
		return printJSON(w, done)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "SCOPE\tREMOVED\tKEPT\tFREED")
	for _, r := range done {
		removed := 0
		for _, n := range r.Removed {
			removed += n
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", r.Scope, removed, r.Kept, cache.FormatBytes(r.FreedBytes))
	}
	return t.Flush()
}

func runCacheRm(c *cli.Context) error {
	if c.Bool("all") == (len(c.StringSlice("scope")) > 0) {
		return usagef("cache rm needs --scope SCOPE or --all, one of them")
	}
	s, scopes, err := openScopes(c)
	if err != nil {
		return err
	}
	removed := []string{}
	var failures []error
	for _, sc := range scopes {
		deleted, err := s.RemoveScope(c.Context, sc)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		removed = append(removed, sc.Name)
		if !deleted {
			warn("scope " + sc.Name + ": the registry does not delete tags: it is empty now, its tag stays")
		}
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, removed)
	} else if len(removed) > 0 {
		_, err = fmt.Fprintln(c.App.Writer, strings.Join(removed, "\n"))
	}
	if err != nil {
		return err
	}
	return joinErrors(failures)
}
