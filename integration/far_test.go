package integration

import (
	"fmt"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/optbuild/optbuild/integration/wan"
)

// registry-slow [RATE ROUNDTRIP]: from now on the registry, and all else that builds fetch, is at the end of a link such as `100mbit 20ms`; without
// arguments it is near again.
func registrySlow(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 0 || len(args) == 2, "registry-slow [RATE ROUNDTRIP]")
	var p wan.Profile
	if len(args) == 2 {
		var err error
		p, err = wan.ParseProfile(args[0], args[1])
		ts.Check(err)
	}
	worldOf(ts).server.link.Set(p)
}

// registry-strict: the registry is another one from now on, as strict as those that people use: each blob is in the repositories that it was pushed to or mounted into, and in no other. It
// has nothing but busybox. Its blobs are in the directory "strict" of the script.
func registryStrict(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 0, "registry-strict")
	w, dir := worldOf(ts), ts.MkAbs("strict")
	ts.Check(os.Mkdir(dir, 0o755))
	w.server.registry.Store(http.HandlerFunc(wan.NewStore(dir).ServeHTTP))
	ts.Check(w.server.offer(w.ground, "busybox"))
	w.server.far.Reset()
	w.server.link.Reset()
}

// registry-fault [REGEXP FAULT [KEY=VALUE]...]: from now on requests whose "METHOD /path" matches meet the fault; wan.ParseRule says which there are.
// Without arguments nothing goes wrong any more.
func registryFault(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) != 1, "registry-fault [REGEXP FAULT [KEY=VALUE]...]")
	far := worldOf(ts).server.far
	if len(args) == 0 {
		far.Clear()
		return
	}
	rule, err := wan.ParseRule(args)
	ts.Check(err)
	far.Add(rule)
}

// registry-count [CONDITION]...: what the registry was asked since the script began or since it last called this, as `BlobGets==0` or `Received<=65536`.
// The names are the fields of wan.Counts and wan.Traffic. Counts begin anew.
func registryCount(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, true, "registry-count [CONDITION]...")
	s := worldOf(ts).server
	counts, traffic := s.far.Counts(), s.link.Traffic()
	s.far.Reset()
	s.link.Reset()
	ts.Logf("%+v %+v", counts, traffic)
	var missed []string
	for _, c := range args {
		ok, err := holds(c, counts, traffic)
		ts.Check(err)
		if !ok {
			missed = append(missed, c)
		}
	}
	if len(missed) > 0 {
		ts.Fatalf("not so: %s", strings.Join(missed, ", "))
	}
}

// registry-await CONDITION...: waits until the registry was asked so much, as registry-count has it. Counts go on.
func registryAwait(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 0, "registry-await CONDITION...")
	s := worldOf(ts).server
	// Nothing tells when something was sent in the background: that is the point of it.
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		counts, all := s.far.Counts(), true
		for _, c := range args {
			ok, err := holds(c, counts)
			ts.Check(err)
			all = all && ok
		}
		if all {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("not so: %s: %+v", strings.Join(args, ", "), counts)
		}
	}
}

var countCondition = regexp.MustCompile(`^(\w+)(==|!=|<=|>=)(\d+)$`)

// holds compares a field of one of the structs with a number.
func holds(condition string, structs ...any) (bool, error) {
	m := countCondition.FindStringSubmatch(condition)
	if m == nil {
		return false, fmt.Errorf("%q is no condition such as BlobGets==0", condition)
	}
	want, err := strconv.ParseInt(m[3], 10, 64)
	if err != nil {
		return false, err
	}
	for _, s := range structs {
		f := reflect.ValueOf(s).FieldByName(m[1])
		if !f.IsValid() {
			continue
		}
		got := f.Int()
		return map[string]bool{"==": got == want, "!=": got != want, "<=": got <= want, ">=": got >= want}[m[2]], nil
	}
	return false, fmt.Errorf("nothing is counted under the name %s", m[1])
}
