package podman

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bottle-run/bottle/runtime"
)

// A step that the engine itself has killed is no fault of the Dockerfile.
func TestABuildWhoseStepTheEngineKilledIsBegunAgain(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM x\nRUN y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		failures int32
		why      string
		builds   int32 // wanted
	}{
		{0, "", 1}, {1, stepLost, 2}, {2, stepLost, 3}, {9, stepLost, 3}, {9, "while running runtime: exit status 137", 1},
	} {
		var builds atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Libpod-API-Version", "4.3.1")
			switch {
			case strings.HasSuffix(r.URL.Path, "/build"):
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					t.Error(err)
				}
				if builds.Add(1) <= tc.failures {
					_, _ = fmt.Fprintf(w, `{"error":"building at STEP \"RUN y\": %s"}`+"\n", tc.why)
				} else {
					_, _ = io.WriteString(w, `{"stream":"`+id+`\n"}`+"\n")
				}
			case strings.HasSuffix(r.URL.Path, "/images/json"), strings.HasSuffix(r.URL.Path, "/containers/json"):
				_, _ = io.WriteString(w, `[]`)
			default:
				_, _ = io.WriteString(w, `{"Id":"`+id+`"}`)
			}
		}))
		rt, err := Driver{}.Open(t.Context(), runtime.Options{Host: "tcp://" + server.Listener.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		var progress bytes.Buffer
		_, err = rt.BuildImage(t.Context(), runtime.BuildSpec{ContextDir: dir, Dockerfile: "Dockerfile", Tags: []string{"localhost/x:1"}, Progress: &progress})
		if (err == nil) != (tc.failures < tc.builds) || builds.Load() != tc.builds {
			t.Errorf("%+v: %d builds, %v", tc, builds.Load(), err)
		}
		if n := strings.Count(progress.String(), "begun again"); n != int(tc.builds)-1 {
			t.Errorf("%+v: it is said %d times", tc, n)
		}
		if err := rt.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	}
}
