package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/optbuild/optbuild/cache/remote"
)

// poisons are, for a kind of entry, contents that a hostile writer could give it; none of them is what an optbuild writes.
var poisons = map[string][]string{
	"tree": {
		`{"place":"PLACE","entries":[{"p":".","t":16877},{"p":"../../../escaped","t":33188}]}`,
		`{"place":"PLACE","entries":[{"p":".","t":16877},{"p":"/etc/escaped","t":33188}]}`,
		`{"place":"PLACE","entries":[{"p":".","t":16877},{"p":"app","t":41471,"l":"/var/tmp"},{"p":"app/escaped","t":33188}]}`,
		`{"place":"PLACE","entries":[{"p":".","t":16877},{"p":"app","t":16877},{"p":"app","t":41471,"l":"/var/tmp"},{"p":"app/escaped","t":33188}]}`,
		`{"place":"PLACE","entries":[{"p":".","t":16877},{"p":"dev","t":8630}]}`,
		`{"place":"/elsewhere","entries":[{"p":".","t":16877}]}`,
		`{"place":"PLACE","entries":[{"p":".","t":16877}` + strings.Repeat(`,{"p":"x","t":33188}`, 60_000) + `]}`,
		`{"entries":[` + strings.Repeat("{},", 1<<21) + `{}]}`,
		strings.Repeat(" ", 70<<20),
		`no JSON`,
	},
	"times": {
		`{"files":[{"p":"../../../escaped","m":1,"t":33188}]}`,
		`{"files":[{"p":"/etc/passwd","m":1,"t":33188},{"p":"app/link/escaped","m":1,"t":33188}]}`,
		`{"files":[` + strings.Repeat("{},", 1<<21) + `{}]}`,
		`{"files":[{"p":"app/src","m":-9223372036854775808,"t":33188,"s":4,"d":"00"},{"p":"nowhere/at/all","m":9223372036854775807,"t":16877}]}`,
	},
	"layers": {
		`{"units":[9223372036854775807,9223372036854775807,4],"outcomes":[{},{},{}]}`,
		`{"units":[2],"outcomes":[{"Stripped":[{"rule":"x"}]}]}`,
		`{"units":[1,1],"outcomes":[{"Stripped":[{"rule":"x"}]},{"Stripped":[{"rule":"x"}]}]}`,
		`{"units":[2],"outcomes":[{"Desc":{"digest":"sha256:../../x","size":1}}]}`,
		`{"units":[2],"outcomes":[{"Desc":{"mediaType":"text/plain","digest":"DIGEST","size":-1,"urls":["http://127.0.0.1:1/"]}}]}`,
		`[]`,
	},
	"solver": {
		`{"config":{"layers":[{"blob":"DIGEST","parent":0}],"records":[{"digest":"DIGEST","layers":[{"layer":0}]}]},"layers":[{"digest":"DIGEST","size":1}]}`,
		`{"config":{"layers":[],"records":[{"digest":"DIGEST","inputs":[[{"link":0}]]}]}}`,
		`{"config":{"records":[` + strings.Repeat("{},", 1<<21) + `{}]}}`,
		`{"config":{"layers":[{"blob":"DIGEST","parent":-1}],"records":[{"digest":"DIGEST","layers":[{"layer":77}]}]}}`,
		`{}`,
	},
	"trace": {"", "no trace", strings.Repeat("x", 1<<16)},
}

// poisonedTwins are ways in which an entry of a twin can lie. The others can't be told from the entry alone.
var poisonedTwins = map[string][]func(*remote.Entry){
	"twin": {
		func(e *remote.Entry) { e.Blob.Size = 1 << 30 },
		func(e *remote.Entry) { e.Blob.Size = 0 },
		func(e *remote.Entry) { e.Blob.MediaType = "text/plain" },
		func(e *remote.Entry) { e.Note["toc"] = "sha256:../../etc" },
		func(e *remote.Entry) { delete(e.Note, "toc") },
		func(e *remote.Entry) { e.Note["diff-id"] = digest.FromString("none").String() },
	},
	"twin-table": {func(e *remote.Entry) { e.Note["toc"] = digest.FromString("of another image").String() }},
	"twin-blob":  {func(e *remote.Entry) { e.Blob.Digest = digest.FromString("none") }},
}

// twins are lies about the oldest twin, newer than all that there are. No index says of a blob that it has two sizes: who lies about that names another blob.
func twins(entries []remote.Entry, kind string) (added []remote.Entry) {
	for i, lie := range poisonedTwins[kind] {
		e := entries[len(entries)-1]
		size := e.Blob.Size
		e.Note = maps.Clone(e.Note)
		lie(&e)
		e.Created = entries[0].Created.Add(time.Duration(i+1) * time.Second)
		if e.Blob.Size != size {
			e.Blob.Digest = digest.FromString(fmt.Sprint(i))
		}
		added = append(added, e)
	}
	return added
}

// poison REPO SCOPE KIND: for each entry of a kind that the cache has, adds ones that are newer and hostile. With KIND "blobs" it changes which layer an entry of a trace holds.
func poison(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "poison REPO SCOPE KIND")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	named, err := reference.ParseNormalizedNamed(args[0])
	ts.Check(err)
	hosts := docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts))
	store := remote.Open(hosts, named, remote.Options{Write: args[1]})
	index, err := store.Load(ctx)
	ts.Check(err)
	w, err := zstd.NewWriter(nil)
	ts.Check(err)
	kind := args[2]
	switch {
	case kind == "blobs":
		kind = "trace"
	case poisonedTwins[kind] != nil:
		kind = "twin"
	}
	entries := index.All(kind)
	if len(entries) == 0 {
		ts.Fatalf("%s", fmt.Sprintf("%s has no entry of the kind %s", args[0], kind))
	}
	var added []remote.Entry
	if args[2] == "blobs" {
		other, err := store.PushBytes(ctx, ocispecs.MediaTypeImageLayerZstd, w.EncodeAll(make([]byte, 1024), nil)) // a layer without files
		ts.Check(err)
		for _, e := range entries {
			e.Created, e.Holds, e.Note = time.Now(), []ocispecs.Descriptor{other}, maps.Clone(e.Note)
			added = append(added, e)
		}
	} else if kind == "twin" {
		added = twins(entries, args[2])
	} else {
		for _, e := range entries {
			for i, text := range poisons[kind] {
				text = strings.ReplaceAll(text, "PLACE", e.Note["place"])
				text = strings.ReplaceAll(text, "DIGEST", digest.FromString("none").String())
				b := []byte(text)
				if kind != "layers" && kind != "trace" {
					b = w.EncodeAll(b, nil)
				}
				if !bytes.HasPrefix([]byte(text), []byte("{")) || json.Valid([]byte(text)) { // else the table above is wrong
					e.Blob, err = store.PushBytes(ctx, e.Blob.MediaType, b)
					ts.Check(err)
				} else {
					ts.Fatalf("%s", "not JSON: "+text)
				}
				e.Created = time.Now().Add(time.Duration(i) * time.Second)
				added = append(added, e)
			}
		}
	}
	ts.Check(store.Add(ctx, added))
	ts.Logf("%s", fmt.Sprintf("added %d entries of the kind %s", len(added), kind))
}
