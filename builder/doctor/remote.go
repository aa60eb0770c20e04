package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
)

func gitBinary(_ context.Context, m *Machine) *Result {
	path, err := m.LookPath("git")
	if err != nil {
		return warn("is not installed: git URLs can't be contexts or sources of ADD", "apt-get install git")
	}
	return ok(path)
}

func credentialHelpers(_ context.Context, m *Machine) *Result {
	b, err := os.ReadFile(m.DockerConfig)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ok("none configured")
	case err != nil:
		return fail(fmt.Sprintf("docker's configuration can't be read: %v", err), "make "+m.DockerConfig+" readable, or set DOCKER_CONFIG to another directory")
	}
	var c struct {
		CredsStore  string            `json:"credsStore"`
		CredHelpers map[string]string `json:"credHelpers"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return fail(fmt.Sprintf("%s is not valid: %v", m.DockerConfig, err), "correct the file, or set DOCKER_CONFIG to another directory")
	}
	used := map[string][]string{} // helper -> registries; the empty one stands for all
	if c.CredsStore != "" {
		used[c.CredsStore] = []string{""}
	}
	for host, helper := range c.CredHelpers {
		used[helper] = append(used[helper], host)
	}
	if len(used) == 0 {
		return ok("none configured")
	}
	r := ok("")
	var found, missing []string
	for helper, hosts := range used {
		name := "docker-credential-" + helper
		if _, err := m.LookPath(name); err == nil {
			found = append(found, name)
			continue
		}
		slices.Sort(hosts)
		r.Status = Warn
		where := strings.Join(hosts, ", ")
		if slices.Contains(hosts, "") {
			where = "all registries"
		}
		missing = append(missing, name+" (for "+where+")")
		r.Remedy = append(r.Remedy, fmt.Sprintf("install %s, or remove it from %s", name, m.DockerConfig))
	}
	slices.Sort(found)
	slices.Sort(missing)
	slices.Sort(r.Remedy)
	r.Found = strings.Join(found, ", ")
	if len(missing) > 0 {
		r.Found = "not in PATH: " + strings.Join(missing, ", ")
		if strings.Contains(r.Found, "(for all registries)") {
			r.Status = Fail
		}
	}
	return r
}

func registry(ctx context.Context, m *Machine, host string) *Result {
	resp, err := m.Ping(ctx, host)
	if err != nil {
		return fail(err.Error(), "check the name, the network and HTTP_PROXY, HTTPS_PROXY, NO_PROXY; for a registry with plain http or a certificate of its own: --insecure-registry "+host+", or its CA in /etc/docker/certs.d/"+host+"/ca.crt")
	}
	defer resp.Body.Close()
	found := resp.Request.URL.Scheme + ", status " + resp.Status
	switch resp.StatusCode {
	case http.StatusOK:
		return ok(found)
	case http.StatusUnauthorized:
		return ok(found + " (wants credentials)")
	}
	return warn(found, "this is not what a registry answers at /v2/: is the name right?")
}
