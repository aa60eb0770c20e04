package request

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/go-csvvalue"
)

// cloudEnv are the variables from which attributes of a cache are taken that are not given, by the cache's type. The engine may have been started by another command, with another environment.
var cloudEnv = map[string]map[string]string{
	"s3": {"bucket": "AWS_BUCKET", "region": "AWS_REGION"},
	"azblob": {
		"account_url": "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL", "account_name": "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME",
		"container": "BUILDKIT_AZURE_STORAGE_CONTAINER", "prefix": "BUILDKIT_AZURE_STORAGE_PREFIX",
	},
}

// keysEnv is the same of a key for S3, which comes as a whole from the flag or from the environment.
var keysEnv = map[string]string{"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY", "session_token": "AWS_SESSION_TOKEN"}

// cloudNeeds are attributes without which there is no such cache.
var cloudNeeds = map[string][]string{"s3": {"bucket", "region"}, "azblob": {"account_url"}}

// cloud completes the attributes of a cache of type s3 or azblob; others stay as they are. Without a key, the clouds' own clients look for one: in files, at the machine's service for it.
func cloud(e client.CacheOptionsEntry, env map[string]string) error {
	from := maps.Clone(cloudEnv[e.Type])
	if e.Type == "s3" && e.Attrs["access_key_id"] == "" && e.Attrs["secret_access_key"] == "" {
		maps.Copy(from, keysEnv)
	}
	for key, name := range from {
		if v := env[name]; e.Attrs[key] == "" && v != "" {
			e.Attrs[key] = v
		}
	}
	for _, key := range cloudNeeds[e.Type] {
		if e.Attrs[key] == "" {
			return fmt.Errorf("%s=… is missing, and %s is not set", key, from[key])
		}
	}
	if e.Type == "s3" && (e.Attrs["access_key_id"] == "") != (e.Attrs["secret_access_key"] == "") {
		return errors.New("access_key_id and secret_access_key go together")
	}
	return nil
}

// secretKeys are attributes of caches that nobody is to see.
var secretKeys = []string{"token", "ghtoken", "secret_access_key", "session_token"}

// withoutSecrets is the value of a flag as it may be shown.
func withoutSecrets(value string) string {
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		fields = strings.Split(value, ",")
	}
	hidden := false
	for i, f := range fields {
		if k, v, _ := strings.Cut(f, "="); v != "" && slices.Contains(secretKeys, strings.ToLower(strings.Trim(k, ` "`))) {
			fields[i], hidden = k+"=…", true
		}
	}
	if !hidden {
		return value
	}
	return strings.Join(fields, ",")
}

// masked is the error with secrets left out of the flag's value.
func masked(err error) error {
	var f *FlagError
	if errors.As(err, &f) {
		f.Value = withoutSecrets(f.Value)
	}
	return err
}
