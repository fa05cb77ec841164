package delivery

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestAnAnswerIsReadAsItWasSaid(t *testing.T) {
	for _, reason := range []error{nil, errors.New(`allow[0].host: "\x1b" is bad`)} {
		var b bytes.Buffer
		Say(slog.New(slog.NewJSONHandler(&b, nil)).With("sidecar", "firewall"), reason)
		ready, err := Answer(bytes.TrimSpace(b.Bytes()))
		if ready != (reason == nil) || (err == nil) != (reason == nil) || err != nil && err.Error() != reason.Error() {
			t.Errorf("%v was read as %v, %v", reason, ready, err)
		}
	}
}

func TestOtherLinesAreNoAnswers(t *testing.T) {
	for _, line := range []string{"", "ready", "not ready", `"ready"`, `["ready"]`, `{"msg":"configured"}`, `{"msg":["ready"]}`, `{"msg":"ready"`, `{"error":"ready"}`, `{"msg":"ready "}`} {
		if ready, err := Answer([]byte(line)); ready || err != nil {
			t.Errorf("%s: %v, %v", line, ready, err)
		}
	}
	if ready, err := Answer([]byte(`{"msg":"not ready"}`)); ready || err == nil {
		t.Errorf("a no without a reason: %v, %v", ready, err)
	}
}

// FuzzAnswer: an image of somebody else's may write anything.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{`{"msg":"ready"}`, `{"msg":"not ready","error":"x"}`, `{"msg":1}`, "{", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		ready, err := Answer([]byte(line))
		if ready && err != nil {
			t.Fatal("it is ready and is not")
		}
		if (ready || err != nil) && !strings.Contains(strings.ToLower(line), "msg") && !strings.Contains(line, `\u`) {
			t.Fatalf("%q is an answer", line)
		}
	})
}
