package request

import (
	"fmt"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/backend"
)

func TestCloud(t *testing.T) {
	for name, c := range map[string]struct {
		kind       string
		attrs, env map[string]string
		want       string
	}{
		"all from the environment": {"s3", nil, map[string]string{"AWS_BUCKET": "b", "AWS_REGION": "r", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_SESSION_TOKEN": "token"},
			"map[access_key_id:id bucket:b region:r secret_access_key:key session_token:token]"},
		"a key of one's own": {"s3", map[string]string{"bucket": "mine", "region": "r", "access_key_id": "me", "secret_access_key": "key"},
			map[string]string{"AWS_BUCKET": "b", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "other", "AWS_SESSION_TOKEN": "token"},
			"map[access_key_id:me bucket:mine region:r secret_access_key:key]"},
		"no key":        {"s3", map[string]string{"bucket": "b", "region": "r"}, nil, "map[bucket:b region:r]"},
		"half a key":    {"s3", map[string]string{"bucket": "b", "region": "r", "access_key_id": "id"}, map[string]string{"AWS_SECRET_ACCESS_KEY": "other"}, "access_key_id and secret_access_key go together"},
		"no bucket":     {"s3", map[string]string{"region": "r"}, nil, "bucket=… is missing, and AWS_BUCKET is not set"},
		"no region":     {"s3", map[string]string{"bucket": "b"}, nil, "region=… is missing, and AWS_REGION is not set"},
		"azblob":        {"azblob", map[string]string{"container": "c"}, map[string]string{"BUILDKIT_AZURE_STORAGE_ACCOUNT_URL": "u", "BUILDKIT_AZURE_STORAGE_CONTAINER": "other"}, "map[account_url:u container:c]"},
		"azblob, where": {"azblob", nil, nil, "account_url=… is missing, and BUILDKIT_AZURE_STORAGE_ACCOUNT_URL is not set"},
	} {
		e := client.CacheOptionsEntry{Type: c.kind, Attrs: map[string]string{}}
		for k, v := range c.attrs {
			e.Attrs[k] = v
		}
		got := ""
		if err := cloud(e, c.env); err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprint(e.Attrs)
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// A binary has a type or says how to get one that does.
func TestCloudRefused(t *testing.T) {
	for _, kind := range []string{"s3", "azblob"} {
		for flag, r := range map[string]Request{"cache-from": {CacheFrom: []string{"type=" + kind}}, "cache-to": {CacheTo: []string{"type=" + kind}}} {
			want := "--" + flag + " type=" + kind + ": " + cloudNeeds[kind][0] + "=… is missing, and " + cloudEnv[kind][cloudNeeds[kind][0]] + " is not set"
			if kind == "s3" && !backend.Has(kind) {
				want = "--" + flag + " type=s3: this binary was built without s3: make build BACKENDS=s3 makes one with it"
			}
			if err := r.caches(&Solve{}); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	}
}

func TestWithoutSecrets(t *testing.T) {
	for value, want := range map[string]string{
		"type=gha,scope=token":           "type=gha,scope=token",
		"type=gha,token=a,scope=b":       "type=gha,token=…,scope=b",
		`type=gha,"token=a,b",GHToken=c`: "type=gha,token=…,GHToken=…",
		`type=gha,"token=a`:              "type=gha,\"token=…",
		"type=s3,secret_access_key=":     "type=s3,secret_access_key=",
	} {
		if got := withoutSecrets(value); got != want {
			t.Errorf("%s is shown as %s, want %s", value, got, want)
		}
	}
}
