package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/buildkit/util/errutil"
)

// ErrCredentials is wrapped by Login's error when the registry does not accept the user's name and password.
var ErrCredentials = errors.New("the registry does not accept this user name and password")

// Login tries a name and password at a registry and, when it accepts them, stores them where docker's configuration says
// that credentials are kept. Where the registry gives a token for the password, the token is stored instead. Asked is false
// when the registry did not ask who it was: the credentials are stored unproven.
func Login(ctx context.Context, c Config, host, user, password string) (asked bool, err error) {
	f, err := c.LoadDocker()
	if err != nil {
		return false, err
	}
	a, asked, err := verify(ctx, c, host, types.AuthConfig{Username: user, Password: password})
	if err != nil {
		return false, err
	}
	a.ServerAddress = Key(host)
	if err := f.GetCredentialsStore(a.ServerAddress).Store(a); err != nil {
		return asked, fmt.Errorf("store credentials for %s: %w", Host(host), err)
	}
	return asked, nil
}

// LoginStored tries the credentials that are stored for a registry; the name is "" when there are none.
func LoginStored(ctx context.Context, c Config, host string) (user string, err error) {
	f, err := c.LoadDocker()
	if err != nil {
		return "", err
	}
	a, err := credentials(f, host)
	if err != nil || a.Username == "" && a.IdentityToken == "" {
		return "", err
	}
	if user = a.Username; user == "" {
		user = "a token"
	}
	_, _, err = verify(ctx, c, host, a)
	return user, err
}

// Logout removes a registry's credentials; false when there were none.
func Logout(c Config, host string) (bool, error) {
	f, err := c.LoadDocker()
	if err != nil {
		return false, err
	}
	found := false
	// Old versions of docker wrote the keys with a scheme.
	for _, key := range []string{Key(host), "https://" + Host(host), "http://" + Host(host)} {
		store := f.GetCredentialsStore(key)
		a, err := store.Get(key)
		if err != nil {
			return found, fmt.Errorf("get credentials for %s: %w", Host(host), err)
		}
		if a == (types.AuthConfig{}) {
			continue
		}
		found = true
		if err := store.Erase(key); err != nil {
			return found, fmt.Errorf("remove credentials for %s: %w", Host(host), err)
		}
	}
	return found, nil
}

// verify asks for the root of the registry's API, which answers only those who are logged in.
func verify(ctx context.Context, c Config, host string, a types.AuthConfig) (_ types.AuthConfig, asked bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("log in to %s: %w", Host(host), err)
		}
	}()
	refresh := ""
	hosts, err := withCredentials(Hosts(c), func(string) (types.AuthConfig, error) { return a, nil },
		docker.WithFetchRefreshToken(func(_ context.Context, token string, _ *http.Request) { refresh = token }))(Host(host))
	if err != nil {
		return a, false, err
	}
	h := hosts[len(hosts)-1] // mirrors come first, and have credentials of their own
	var responses []*http.Response
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Scheme+"://"+h.Host+h.Path+"/", nil)
		if err != nil {
			return a, asked, err
		}
		if h.Header != nil {
			req.Header = h.Header.Clone()
		}
		if err := h.Authorizer.Authorize(ctx, req); err != nil {
			return a, asked, refused(err)
		}
		resp, err := h.Client.Do(req)
		if err != nil {
			return a, asked, err
		}
		body := resp.Body
		defer body.Close()
		if resp.StatusCode < 300 {
			_, _ = io.Copy(io.Discard, io.LimitReader(body, 1<<20))
			if refresh != "" {
				a.IdentityToken, a.Password = refresh, ""
			}
			return a, asked, nil
		}
		responses = append(responses, resp)
		if resp.StatusCode != http.StatusUnauthorized || asked {
			break
		}
		asked = true
		if err := h.Authorizer.AddResponses(ctx, responses); err != nil {
			return a, asked, refused(err)
		}
	}
	return a, asked, refused(remoteserrors.NewUnexpectedStatusErr(responses[len(responses)-1]))
}

// refused marks an error that says that the credentials are wrong.
func refused(err error) error {
	var status remoteserrors.ErrUnexpectedStatus
	if errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden) ||
		errors.Is(err, docker.ErrInvalidAuthorization) {
		return fmt.Errorf("%w: %w", ErrCredentials, errutil.WithDetails(err))
	}
	return errutil.WithDetails(err)
}
