//go:build optbuild_s3

package backends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	client "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/s3"
	"github.com/moby/buildkit/session"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

func addS3(list map[string]backend) {
	list["s3"] = backend{s3.ResolveCacheExporterFunc(), importS3}
}

// s3Bucket is a cache at S3.
type s3Bucket struct {
	client                    *client.Client
	name                      string
	indexPrefix, layersPrefix string
}

func importS3(check chains.Check) remotecache.ResolveCacheImporterFunc {
	return func(ctx context.Context, _ session.Group, attrs map[string]string) (remotecache.Importer, ocispecs.Descriptor, error) {
		b, err := openS3(ctx, attrs)
		if err != nil {
			return nil, ocispecs.Descriptor{}, fmt.Errorf("cache type=s3: %w", err)
		}
		// A cache that is written to several names is read from the first.
		name, _, _ := strings.Cut(given(attrs, "name", "buildkit"), ";")
		return &importer{b, []string{name}, check}, ocispecs.Descriptor{}, nil
	}
}

// openS3 reads the attributes of a cache. What the environment says is in them already.
func openS3(ctx context.Context, attrs map[string]string) (*s3Bucket, error) {
	mode, attempts := aws.RetryMode(attrs["retry_mode"]), 0
	if mode != "" && mode != aws.RetryModeStandard && mode != aws.RetryModeAdaptive {
		return nil, fmt.Errorf("retry_mode=%s is not standard or adaptive", mode)
	}
	if v, ok := attrs["retry_max_attempts"]; ok {
		var err error
		if attempts, err = strconv.Atoi(v); err != nil || attempts < 1 {
			return nil, fmt.Errorf("retry_max_attempts=%s is no number above 0", v)
		}
	}
	c, err := config.LoadDefaultConfig(ctx, config.WithRegion(attrs["region"]))
	if err != nil {
		return nil, fmt.Errorf("read the client's configuration: %w", err)
	}
	b := &s3Bucket{
		name:         attrs["bucket"],
		indexPrefix:  attrs["prefix"] + given(attrs, "manifests_prefix", "manifests/"),
		layersPrefix: attrs["prefix"] + given(attrs, "blobs_prefix", "blobs/"),
	}
	b.client = client.NewFromConfig(c, func(o *client.Options) {
		o.HTTPClient = refusals{o.HTTPClient}
		if id, key := attrs["access_key_id"], attrs["secret_access_key"]; id != "" && key != "" {
			o.Credentials = credentials.NewStaticCredentialsProvider(id, key, attrs["session_token"])
		}
		if v := attrs["endpoint_url"]; v != "" {
			o.BaseEndpoint = &v
			o.UsePathStyle = isTrue(attrs["use_path_style"])
		}
		if mode != "" {
			o.RetryMode = mode
		}
		if attempts > 0 {
			o.RetryMaxAttempts = attempts
		}
		if isTrue(attrs["disable_accept_encoding"]) {
			o.APIOptions = append(o.APIOptions, withoutAcceptEncoding)
		}
	})
	return b, nil
}

// isTrue takes what is no boolean for false, as BuildKit does.
func isTrue(value string) bool {
	is, _ := strconv.ParseBool(value)
	return is
}

// withoutAcceptEncoding keeps a header out of what is signed that Google's servers change (moby/buildkit#3749).
func withoutAcceptEncoding(s *middleware.Stack) error {
	_, _ = s.Finalize.Remove("DisableAcceptEncodingGzip") // an error says that there is none
	return nil
}

func (b *s3Bucket) open(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	in := &client.GetObjectInput{Bucket: &b.name, Key: &key}
	if offset > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	out, err := b.client.GetObject(ctx, in)
	if gone := (*types.NoSuchKey)(nil); errors.As(err, &gone) {
		return nil, fmt.Errorf("%s: %w", key, cerrdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return out.Body, nil
}

// look takes it that a layer is there: as BuildKit's, this cache is not asked about each. One that is gone is noticed when it is read.
func (b *s3Bucket) look(context.Context, string) error { return nil }

func (b *s3Bucket) indexKey(name string) string { return b.indexPrefix + name }

func (b *s3Bucket) layerKey(d digest.Digest) string { return b.layersPrefix + d.String() }
