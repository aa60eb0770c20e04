package replay

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"github.com/optbuild/optbuild/builder/trace/store"
)

// describe notes what the digest of the exec stands for, so that a later build can say what of it has changed. Values may be secret: their digests are kept.
func (st *step) describe(k *key) {
	m := st.op.Meta
	k.note("command", strings.Join(m.Args, "\x00"))
	for _, e := range m.Env {
		name, value, _ := strings.Cut(e, "=")
		if slices.Contains(st.args, name) {
			k.note("build arg "+name, value)
		} else {
			k.note("environment variable "+name, value)
		}
	}
	k.note("user", m.User)
	k.note("working directory", m.Cwd)
	k.note("network", st.op.Network.String())
	k.note("security", st.op.Security.String())
}

// key collects labelled lines, each of which is something that the step depends on.
type key struct {
	fields []store.Field // that the key is made of
	// carried are the fields in a form that means the same elsewhere; local says that some have none.
	carried []carried
	local   bool
	notes   []store.Field // what else there is to tell of them
	rec     store.StepRecord
}

func (k *key) note(name, value string) {
	sum := sha256.Sum256([]byte(value))
	k.notes = append(k.notes, store.Field{Name: name, Value: hex.EncodeToString(sum[:8])})
}

func newKey(st *step) *key {
	k := &key{rec: store.StepRecord{Name: st.name, Time: now()}}
	k.add("version", "optbuild replay 1")
	k.add("platform", st.platform)
	return k
}

func (k *key) add(name, value string) {
	k.fields = append(k.fields, store.Field{Name: name, Value: value})
}

func (k *key) carry(name, value string) {
	k.carried = append(k.carried, carried{name: name, value: value})
}

func (k *key) carryMount(m *pb.Mount) {
	k.carry("mount "+m.Dest, fmt.Sprintf("%s selector %q", m.MountType, m.Selector))
}

// carrySum adds the sum of the small layer at an index.
func (k *key) carrySum(name, sum string, i int) {
	k.carried = append(k.carried, carried{name: name, value: sum, small: i + 1})
}

// carryLayer adds the layer at an index, from the topmost below the step on.
func (k *key) carryLayer(name string, i int) {
	k.carried = append(k.carried, carried{name: name, depth: i + 1})
}

func (k *key) sum() (sum [32]byte) {
	h := sha256.New()
	for _, f := range k.fields {
		for _, s := range []string{f.Name, f.Value} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
			h.Write([]byte(s))
		}
	}
	h.Sum(sum[:0])
	return sum
}

func (k *key) String() string {
	var b strings.Builder
	for _, f := range k.fields {
		fmt.Fprintf(&b, "\n  %s: %s", f.Name, f.Value)
	}
	return b.String()
}

func (k *key) record() store.StepRecord {
	k.rec.Fields = k.notes
	for _, f := range k.fields {
		if f.Name != "exec" { // the notes say what it stands for
			k.rec.Fields = append(k.rec.Fields, f)
		}
	}
	return k.rec
}
