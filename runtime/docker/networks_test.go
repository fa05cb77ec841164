package docker

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// TestANetworkWithAStaleEndpointCanBeRemoved plays a daemon that has forgotten a container,
// but not its endpoint. A container that is there keeps its own.
func TestANetworkWithAStaleEndpointCanBeRemoved(t *testing.T) {
	for name, tc := range map[string]struct {
		endpoints string
		dropped   []string
		removed   bool
	}{
		"stale":           {`{"ep-12": {"Name": "gone"}}`, []string{"gone"}, true},
		"by container":    {`{"0123": {"Name": "gone"}}`, []string{"gone"}, true},
		"of one that is":  {`{"there": {"Name": "there"}}`, nil, false},
		"of one by name":  {`{"ep-12": {"Name": "there"}}`, nil, false},
		"nothing is said": {`{}`, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			var dropped []string
			removed := false
			answer := func(w http.ResponseWriter, status int, body string) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
			}
			const network = `{"Id": "n1", "Name": "net", "Driver": "bridge", "Labels": {"` + runtime.LabelManaged + `": "true"}`
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/") // without the version
				switch path = r.Method + " " + path; {
				case path == "GET networks":
					answer(w, 200, "["+network+"}]")
				case path == "GET networks/n1":
					answer(w, 200, network+`, "Containers": `+tc.endpoints+"}")
				case path == "GET containers/json":
					answer(w, 200, "[]")
				case path == "GET containers/there/json":
					answer(w, 200, `{"Id": "there"}`)
				case path == "POST networks/n1/disconnect":
					body, _ := io.ReadAll(r.Body)
					if !strings.Contains(string(body), `"Force":true`) {
						t.Errorf("disconnected by %s", body)
					}
					dropped = append(dropped, strings.Split(strings.SplitN(string(body), `"Container":"`, 2)[1], `"`)[0])
					answer(w, 200, "")
				case path == "DELETE networks/n1" && len(dropped) == 0:
					answer(w, 403, `{"message": "error while removing network: network net id n1 has active endpoints"}`)
				case path == "DELETE networks/n1":
					removed = true
					answer(w, 204, "")
				default:
					answer(w, 404, `{"message": "no such thing"}`)
				}
			}))
			defer server.Close()
			cli, err := client.New(client.WithHost("tcp://"+server.Listener.Addr().String()), client.WithAPIVersion("1.41"))
			if err != nil {
				t.Fatal(err)
			}
			e := &engine{cli: cli, seal: noSealer{"the test says so"}, log: slog.New(slog.DiscardHandler)}
			err = e.RemoveNetwork(t.Context(), "net")
			if removed != tc.removed || tc.removed != (err == nil) || err != nil && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("removed: %v, %v", removed, err)
			}
			if said := err != nil && strings.Contains(err.Error(), "when it has been restarted"); said != (tc.endpoints == "{}") {
				t.Errorf("whether the daemon has miscounted: %v", err)
			}
			if !slices.Equal(dropped, tc.dropped) {
				t.Errorf("dropped %q, want %q", dropped, tc.dropped)
			}
		})
	}
}
