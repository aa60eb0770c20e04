package backends

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/azblob"
	"github.com/moby/buildkit/session"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

func addAzblob(list map[string]backend) {
	list["azblob"] = backend{azblob.ResolveCacheExporterFunc(), importAzblob}
}

// azureContainer is a cache at Azure Blob Storage.
type azureContainer struct {
	client                          *container.Client
	prefix, indexFolder, blobFolder string
}

func importAzblob(check chains.Check) remotecache.ResolveCacheImporterFunc {
	return func(_ context.Context, _ session.Group, attrs map[string]string) (remotecache.Importer, ocispecs.Descriptor, error) {
		c, err := openAzure(attrs)
		if err != nil {
			return nil, ocispecs.Descriptor{}, fmt.Errorf("cache type=azblob: %w", err)
		}
		return &importer{c, strings.Split(given(attrs, "name", "buildkit"), ";"), check}, ocispecs.Descriptor{}, nil
	}
}

// openAzure reads the attributes of a cache. What the environment says is in them already.
func openAzure(attrs map[string]string) (*azureContainer, error) {
	account, err := url.Parse(attrs["account_url"])
	if err != nil {
		return nil, err
	}
	subdomain, _, _ := strings.Cut(account.Hostname(), ".")
	name := given(attrs, "account_name", subdomain)
	if name == "" {
		return nil, fmt.Errorf("account_url=%s does not have the account's name, and account_name=… is missing", account.Redacted())
	}
	c := &azureContainer{prefix: attrs["prefix"], indexFolder: given(attrs, "manifests_prefix", "manifests"), blobFolder: given(attrs, "blobs_prefix", "blobs")}
	address := account.JoinPath(given(attrs, "container", "buildkit-cache")).String()
	o := &container.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: refusals{http.DefaultClient}}}
	if key := attrs["secret_access_key"]; key != "" {
		credential, err := container.NewSharedKeyCredential(name, key)
		if err != nil {
			return nil, fmt.Errorf("read the key: %w", err)
		}
		c.client, err = container.NewClientWithSharedKeyCredential(address, credential, o)
		return c, err
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, fmt.Errorf("look for a key: %w", err)
	}
	c.client, err = container.NewClient(address, credential, o)
	return c, err
}

func (c *azureContainer) open(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	o := &blob.DownloadStreamOptions{}
	if offset > 0 {
		o.Range.Offset = offset
	}
	resp, err := c.client.NewBlobClient(key).DownloadStream(ctx, o)
	if err != nil {
		return nil, azureError(key, err)
	}
	return resp.Body, nil
}

// lookWait is how long it may take to say that an object is there: the client would wait for ever.
const lookWait = time.Minute

func (c *azureContainer) look(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	_, err := c.client.NewBlobClient(key).GetProperties(ctx, nil)
	return azureError(key, err)
}

func azureError(key string, err error) error {
	if bloberror.HasCode(err, bloberror.BlobNotFound, bloberror.ContainerNotFound) {
		return fmt.Errorf("%s: %w", key, cerrdefs.ErrNotFound)
	}
	return err
}

func (c *azureContainer) indexKey(name string) string {
	return path.Join(c.prefix, c.indexFolder, name)
}

func (c *azureContainer) layerKey(d digest.Digest) string {
	return path.Join(c.prefix, c.blobFolder, d.String())
}
