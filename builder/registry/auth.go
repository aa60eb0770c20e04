package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	tokens "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	dockercredentials "github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/util/errutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// LoadDocker reads docker's config.json; one that is missing, or that this user may not read, is empty.
func (c Config) LoadDocker() (*configfile.ConfigFile, error) {
	if c.DockerDir == "" {
		return configfile.New(""), nil
	}
	path := filepath.Join(c.DockerDir, dockerconfig.ConfigFileName)
	if b, err := readFile(path); err != nil {
		return nil, err
	} else if err := json.Unmarshal(b, &map[string]any{}); b != nil && err != nil {
		return nil, jsonError(path, b, err)
	}
	f, err := dockerconfig.Load(c.DockerDir)
	if err != nil && !absent(err) {
		return nil, &FileError{Path: path, Err: err}
	}
	// As the docker command does: when nothing says where credentials are kept, a helper for this system that is installed.
	if !f.ContainsAuth() {
		f.CredentialsStore = dockercredentials.DetectDefaultStore(f.CredentialsStore)
	}
	return f, nil
}

// Key is the name under which docker's config.json keeps the credentials of a registry.
func Key(host string) string {
	if Host(host) == hub {
		return authprovider.DockerHubConfigfileKey
	}
	return Host(host)
}

// ClientHosts returns Hosts whose requests are authorised with docker's credentials: for the pushes and pulls that the
// command makes itself.
func ClientHosts(c Config) docker.RegistryHosts {
	file := sync.OnceValues(c.LoadDocker)
	return withCredentials(Hosts(c), func(host string) (types.AuthConfig, error) {
		f, err := file()
		if err != nil {
			return types.AuthConfig{}, err
		}
		return credentials(f, host)
	})
}

func credentials(f *configfile.ConfigFile, host string) (types.AuthConfig, error) {
	a, err := f.GetAuthConfig(Key(host))
	if err != nil {
		return a, fmt.Errorf("get credentials for %s: %w", Host(host), err)
	}
	return a, nil
}

// withCredentials gives each host an authorizer. Tokens are kept for as long as the function is.
func withCredentials(hosts docker.RegistryHosts, get func(host string) (types.AuthConfig, error), o ...docker.AuthorizerOpt) docker.RegistryHosts {
	var mu sync.Mutex
	authorizers := map[string]docker.Authorizer{}
	return func(name string) ([]docker.RegistryHost, error) {
		out, err := hosts(name)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		for i, h := range out {
			key := name + " " + h.Host
			if authorizers[key] == nil {
				opts := append([]docker.AuthorizerOpt{
					docker.WithAuthClient(h.Client),
					docker.WithAuthCreds(func(host string) (string, string, error) { return userSecret(get(host)) }),
				}, o...)
				if len(h.Header) > 0 {
					opts = append(opts, docker.WithAuthHeader(h.Header))
				}
				authorizers[key] = docker.NewDockerAuthorizer(opts...)
			}
			out[i].Authorizer = authorizers[key]
		}
		return out, nil
	}
}

// userSecret is in containerd's form: an identity token is a secret without a user.
func userSecret(a types.AuthConfig, err error) (user, secret string, _ error) {
	if a.IdentityToken != "" {
		return "", a.IdentityToken, err
	}
	return a.Username, a.Password, err
}

// Auth returns the session attachable from which the engine gets credentials and tokens for this command's build. They
// come from docker's configuration, f; the engine does not see passwords where the registry works with tokens.
func Auth(c Config, f *configfile.ConfigFile) (session.Attachable, error) {
	load := authprovider.LoadAuthConfig(f)
	get := func(ctx context.Context, host string, scopes []string, expired authprovider.ExpireCachedAuthCheck) (types.AuthConfig, error) {
		a, err := load(ctx, host, scopes, expired)
		if err != nil {
			return a, fmt.Errorf("get credentials for %s: %w", Host(host), err)
		}
		return a, nil
	}
	p := authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: get})
	server, ok := p.(auth.AuthServer)
	if !ok {
		return nil, errors.New("BuildKit's auth provider has another form than expected")
	}
	return &sessionAuth{server, Hosts(c), get}, nil
}

// sessionAuth is BuildKit's provider, except that it fetches tokens with the registry's own client: BuildKit uses one
// client for all servers of tokens, knows no retries, and once a registry has certificates of its own (or none that are
// checked), it uses that configuration for every later one. Also, it hides that the provider can log: the user's display
// would get a line for each token.
type sessionAuth struct {
	auth.AuthServer
	hosts docker.RegistryHosts
	get   authprovider.AuthConfigProvider
}

func (a *sessionAuth) Register(s *grpc.Server) { auth.RegisterAuthServer(s, a) }

// GetTokenAuthority needs a seed that the provider keeps beside docker's configuration. Where that can't be written (a
// container whose user has no home), the engine is told to fetch its tokens itself.
func (a *sessionAuth) GetTokenAuthority(ctx context.Context, req *auth.GetTokenAuthorityRequest) (*auth.GetTokenAuthorityResponse, error) {
	r, err := a.AuthServer.GetTokenAuthority(ctx, req)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return r, err
}

func (a *sessionAuth) FetchToken(ctx context.Context, req *auth.FetchTokenRequest) (*auth.FetchTokenResponse, error) {
	c, err := a.get(ctx, req.Host, req.Scopes, nil)
	if err != nil {
		return nil, err
	}
	if c.RegistryToken != "" {
		return tokenResponse(c.RegistryToken, time.Time{}, 0), nil
	}
	hosts, err := a.hosts(Host(req.Host))
	if err != nil {
		return nil, err
	}
	to := tokens.TokenOptions{Realm: req.Realm, Service: req.Service, Scopes: req.Scopes}
	if to.Username, to.Secret, err = userSecret(c, nil); err != nil {
		return nil, err
	}
	r, err := fetchToken(ctx, hosts[len(hosts)-1].Client, to)
	if err != nil {
		return nil, fmt.Errorf("fetch token for %s: %w", Host(req.Host), errutil.WithDetails(err))
	}
	return r, nil
}

// fetchToken asks by POST, as OAuth has it, and where the server does not know that (GCR
// answers 404, JFrog 401, ACR 400) or there is no password, by GET.
func fetchToken(ctx context.Context, client *http.Client, to tokens.TokenOptions) (*auth.FetchTokenResponse, error) {
	if to.Secret != "" {
		r, err := tokens.FetchTokenWithOAuth(ctx, client, nil, "optbuild", to)
		if err == nil {
			return tokenResponse(r.AccessToken, r.IssuedAt, r.ExpiresInSeconds), nil
		}
		var unexpected remoteserrors.ErrUnexpectedStatus
		if !errors.As(err, &unexpected) || to.Username == "" || !slices.Contains([]int{400, 401, 404, 405}, unexpected.StatusCode) {
			return nil, err
		}
	}
	r, err := tokens.FetchToken(ctx, client, nil, to)
	if err != nil {
		return nil, err
	}
	return tokenResponse(r.Token, r.IssuedAt, r.ExpiresInSeconds), nil
}

func tokenResponse(token string, issued time.Time, seconds int) *auth.FetchTokenResponse {
	if seconds == 0 {
		seconds = 60 // the token specification's default
	}
	r := &auth.FetchTokenResponse{Token: token, ExpiresIn: int64(seconds)}
	if !issued.IsZero() {
		r.IssuedAt = issued.Unix()
	}
	return r
}
