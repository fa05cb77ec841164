package faulty_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
	"github.com/bottle-run/bottle/runtime/faulty"
)

func network(t *testing.T, rt runtime.Runtime, name string) error {
	t.Helper()
	_, err := rt.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: name})
	return err
}

func names(t *testing.T, rt runtime.Runtime) string {
	t.Helper()
	list, err := rt.ListNetworks(t.Context(), runtime.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, n := range list {
		all = append(all, n.Name)
	}
	return strings.Join(all, " ")
}

func TestWhichCallFailsAndWhatIsThereAfterwards(t *testing.T) {
	for plan, want := range map[string]struct{ failed, there string }{
		"":                           {"", "a b c"},
		"CreateNetwork@2 = fail":     {"b", "a c"},
		"CreateNetwork@2 = do, fail": {"b", "a b c"},
		"CreateNetwork@2+ = fail":    {"b c", "a"},
		"CreateNetwork@1-2 = do, delay 1ms, fail": {"a b", "a b c"},
		"CreateNetwork(c) = fail":                 {"c", "a b"},
		"CreateNetwork([bc])@1 = fail":            {"b", "a c"},
		"*@3 = fail":                              {"c", "a b"},
		"Run = fail":                              {"", "a b c"},
		"# none\nCreateNetwork@1 = delay 1ms; CreateNetwork@1-2 = fail": {"b", "a c"},
		"CreateNetwork@1 = delay 1ms, do, delay 1ms":                    {"", "a b c"},
	} {
		engine := fake.New()
		rt := faulty.New(engine, faulty.MustParse(plan))
		var failed []string
		for _, n := range []string{"a", "b", "c"} {
			if err := network(t, rt, n); err != nil {
				if !errors.Is(err, faulty.ErrFault) || !errdefs.IsInternal(err) {
					t.Errorf("%s: %v", plan, err)
				}
				failed = append(failed, n)
			}
		}
		if got := strings.Join(failed, " "); got != want.failed || names(t, engine) != want.there {
			t.Errorf("%s: %q failed, want %q; there is %q, want %q", plan, got, want.failed, names(t, engine), want.there)
		}
		if calls := rt.Calls(); len(calls) != 3 || calls[1].Object != "b" || calls[1].Method != "CreateNetwork" || calls[1].N != 2 {
			t.Errorf("%s: calls %+v", plan, calls)
		}
	}
}

func TestAFailureHasTheKindAndTheTextOfItsRule(t *testing.T) {
	rt := faulty.New(fake.New(), faulty.MustParse(`CreateNetwork = fail unavailable "the daemon went away"`))
	err := network(t, rt, "n")
	var re *runtime.Error
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "the daemon went away") || !errors.As(err, &re) || re.Object != "n" {
		t.Errorf("got %v", err)
	}
}

func TestACallThatFailsByItselfKeepsItsError(t *testing.T) {
	rt := faulty.New(fake.New(), faulty.MustParse("Kill = do, fail"))
	if err := rt.Kill(t.Context(), "nobody", "SIGTERM"); !errdefs.IsNotFound(err) || errors.Is(err, faulty.ErrFault) {
		t.Errorf("got %v", err)
	}
}

func TestACallThatHangsEndsWithItsContext(t *testing.T) {
	for _, plan := range []string{"Info = hang", "Info = delay 1h", "Info = do, hang"} {
		rt := faulty.New(fake.New(), faulty.MustParse(plan))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := rt.Info(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", plan, err)
		}
	}
}

func TestAPanicSaysThatItIsOnPurpose(t *testing.T) {
	rt := faulty.New(fake.New(), faulty.MustParse(`Info = panic "boo"`))
	defer func() {
		if p, _ := recover().(error); !errors.Is(p, faulty.ErrFault) || !strings.Contains(p.Error(), "boo") {
			t.Errorf("got %v", p)
		}
	}()
	_, _ = rt.Info(t.Context())
	t.Error("no panic")
}

// streamer is an engine whose CopyFrom gives ten bytes.
type streamer struct {
	runtime.Runtime
	closed bool
}

func (s *streamer) CopyFrom(context.Context, string, string) (io.ReadCloser, error) { return s, nil }
func (s *streamer) Close() error                                                    { s.closed = true; return nil }
func (s *streamer) Read(p []byte) (int, error)                                      { return copy(p, "x"), nil }

func TestAStreamBreaksOff(t *testing.T) {
	for plan, want := range map[string]int{"CopyFrom = do, break 0": 0, "CopyFrom = do, break 7 data-loss": 7} {
		s := &streamer{}
		r, err := faulty.New(s, faulty.MustParse(plan)).CopyFrom(t.Context(), "c", "/")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if len(got) != want || !errors.Is(err, faulty.ErrFault) || errdefs.IsDataLoss(err) != (want == 7) {
			t.Errorf("%s: %d bytes, %v", plan, len(got), err)
		}
		if err := r.Close(); err != nil || !s.closed {
			t.Errorf("%s: it is not closed: %v", plan, err)
		}
	}
	s := &streamer{}
	if _, err := faulty.New(s, faulty.MustParse("CopyFrom = do, fail")).CopyFrom(t.Context(), "c", "/"); err == nil || !s.closed {
		t.Errorf("a stream that nobody gets is not closed: %v", err)
	}
}

// TestEveryMethodIsDecorated calls each by reflection and looks that its rule acts.
func TestEveryMethodIsDecorated(t *testing.T) {
	for _, name := range faulty.Methods() {
		rt := faulty.New(fake.New(), faulty.MustParse(name+" = fail"))
		m := reflect.ValueOf(rt).MethodByName(name)
		args := make([]reflect.Value, m.Type().NumIn())
		for i := range args {
			args[i] = reflect.Zero(m.Type().In(i))
			if args[i].Type() == reflect.TypeFor[context.Context]() {
				args[i] = reflect.ValueOf(t.Context())
			}
		}
		out := m.Call(args)
		if err, _ := out[len(out)-1].Interface().(error); !errors.Is(err, faulty.ErrFault) {
			t.Errorf("%s: %v", name, err)
		}
		if calls := rt.Calls(); len(calls) != 1 || calls[0].Method != name || calls[0].Rule != name+" = fail" {
			t.Errorf("%s: %+v", name, calls)
		}
	}
}

func TestWithoutRulesItIsTheEngine(t *testing.T) {
	engine := fake.New()
	engine.AddImage("img", runtime.ImageConfig{}, nil, map[string]string{"/f": "content"})
	rt := faulty.New(engine, faulty.Plan{})
	engine.Handle("p", func(ctx context.Context, _ *fake.Process) int { <-ctx.Done(); return 0 })
	c, err := rt.Run(t.Context(), runtime.ContainerSpec{Name: "c", Image: "img", Entrypoint: []string{"p"}})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := rt.CopyFrom(t.Context(), c.ID, "/f")
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(stream)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if content, err := io.ReadAll(r); err != nil || !bytes.Equal(content, []byte("content")) {
		t.Errorf("%q, %v", content, err)
	}
	_ = stream.Close()
	if err := rt.RemoveContainer(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
}

func TestRulesThatAreWrongSayWhereAndWhatIsWanted(t *testing.T) {
	for text, want := range map[string]string{
		"Jump = fail":                 "1:1: want * or a method",
		"Run":                         "1:4: want =",
		"Run = ":                      "1:7: want one of do, delay",
		"Run = explode":               "1:7: want one of do",
		"Run = fail; Run@0 = fail":    "1:18: want a call's number",
		"Run@5-2 = fail":              "want a call's number",
		"Run@x = fail":                "1:5: want a call's number",
		"Run = delay soon":            "1:13: want a duration",
		"Run = fail broken":           "1:12: want a kind of error: aborted, already-exists",
		"Run = fail \"x":              "1:12: want a text",
		"Run = panic internal":        "a panic has no kind",
		"Run = fail, do":              "nothing follows fail",
		"Run = do, do":                "two do",
		"CopyFrom = break 3":          "before do",
		"Run = break":                 "a number of bytes",
		"Run([) = fail":               "the pattern",
		"Run(x = fail":                "and )",
		"Run = fail fail":             "want a kind",
		"Run = do delay 1s":           "want a comma",
		"\n\n  Run = fail\n Jump = x": "4:2: want * or a method",
	} {
		_, err := faulty.Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

// FuzzParse: whatever parses is written and read again as the same rules.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"Run@2 = fail", "*@7 = do, panic \"no\"", "CreateNetwork(*.egress) = fail unavailable \"gone\\n\"", "Exec@3+ = delay 200ms; CopyTo@1-2 = hang",
		"CopyFrom = do, break 512 data-loss # why\nInfo = do", "Run(a b) = hang", "Run() = do", "Exec = delay 1h2m3.5s, do", "Exec = delay 1.5us", "=", ";;;",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		plan, err := faulty.Parse(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fault rules:") {
				t.Fatalf("%q: the error has no place: %v", text, err)
			}
			return
		}
		again, err := faulty.Parse(plan.String())
		if err != nil || again.String() != plan.String() || !reflect.DeepEqual(again, plan) {
			t.Fatalf("%q is %q, and that: %v, %q", text, plan, err, again)
		}
	})
}
