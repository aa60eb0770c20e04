package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// maxMessage bounds how much of a registry's answer becomes part of an error.
const maxMessage = 1024

// readableErrors rewrites the body of an error answer so that the registry's own words survive: containerd and BuildKit
// keep the code and message of the registry API's errors, drop their details when they are in an unexpected form, and show
// nothing of a body in another format when it was an answer to a pull.
//
//	{"errors":[{"code":"DENIED","message":"no","detail":"over quota"}]}  ->  ...{"code":"DENIED","message":"no: over quota"}
//	tag is immutable                                                    ->  ...{"code":"UNKNOWN","message":"tag is immutable"}
type readableErrors struct{ next http.RoundTripper }

func (t *readableErrors) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil || resp.StatusCode < 400 || r.Method == http.MethodHead {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	resp.Body.Close()
	if err != nil {
		body = nil // the status is what there is
	}
	body = rewriteErrors(resp.Header.Get("Content-Type"), body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	resp.Header.Del("Content-Encoding")
	return resp, nil
}

// apiError is one error of the registry API.
type apiError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

func rewriteErrors(contentType string, body []byte) []byte {
	if out, ok := rewriteAPIErrors(body); ok {
		return out
	}
	text := plainText(contentType, body)
	if text == "" {
		return body
	}
	out, err := json.Marshal(map[string][]apiError{"errors": {{Code: "UNKNOWN", Message: text}}})
	if err != nil {
		return body
	}
	return out
}

func rewriteAPIErrors(body []byte) ([]byte, bool) {
	var v struct {
		Errors []apiError `json:"errors"`
	}
	if json.Unmarshal(body, &v) != nil || len(v.Errors) == 0 {
		return nil, false
	}
	for i, e := range v.Errors {
		detail, ok := e.Detail.(string)
		if m, isMap := e.Detail.(map[string]any); isMap {
			for _, k := range []string{"message", "reason", "error", "details"} {
				if s, found := m[k].(string); found {
					detail, ok = s, true
					break
				}
			}
		}
		if ok && detail != "" && !strings.Contains(e.Message, detail) {
			v.Errors[i].Message = strings.TrimPrefix(clip(e.Message+": "+detail), ": ")
		}
		if ok {
			v.Errors[i].Detail = nil
		}
	}
	out, err := json.Marshal(v)
	return out, err == nil
}

// plainText is what a person can read in a body of another format; "" for pages and binaries.
func plainText(contentType string, body []byte) string {
	if media, _, _ := mime.ParseMediaType(contentType); media == "text/html" || bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) {
		return ""
	}
	var v map[string]any
	if json.Unmarshal(body, &v) == nil {
		for _, k := range []string{"details", "detail", "error_description", "message", "error"} {
			if s, ok := v[k].(string); ok && s != "" {
				return clip(s)
			}
		}
	}
	for _, b := range body {
		if b < ' ' && b != '\n' && b != '\r' && b != '\t' {
			return ""
		}
	}
	return clip(strings.Join(strings.Fields(string(body)), " "))
}

func clip(s string) string {
	if len(s) > maxMessage {
		return fmt.Sprintf("%s... (%d more bytes)", strings.ToValidUTF8(s[:maxMessage], ""), len(s)-maxMessage)
	}
	return s
}
