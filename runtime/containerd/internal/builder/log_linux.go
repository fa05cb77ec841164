package builder

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/containerd/log"
	"github.com/moby/buildkit/util/bklog"
	"github.com/sirupsen/logrus"
)

// logTo receives what BuildKit logs: the Log of the last solver started.
var logTo atomic.Pointer[slog.Logger]

// BuildKit and containerd's client log to logrus's standard logger, that is to
// standard error. It has to be replaced before anybody reads the variables.
func init() {
	quiet := &logrus.Logger{
		Out: io.Discard, Formatter: discard{}, Level: logrus.InfoLevel, Hooks: logrus.LevelHooks{},
		ExitFunc: func(int) {},
	}
	quiet.AddHook(hook{})
	bklog.L = logrus.NewEntry(quiet)
	log.L = bklog.L
}

// discard saves the formatting of lines that nobody reads.
type discard struct{}

func (discard) Format(*logrus.Entry) ([]byte, error) { return nil, nil }

type hook struct{}

func (hook) Levels() []logrus.Level { return logrus.AllLevels }

func (hook) Fire(e *logrus.Entry) error {
	to := logTo.Load()
	if to == nil || !to.Enabled(context.Background(), slog.LevelDebug) {
		return nil
	}
	args := []any{"from", "buildkit", "severity", e.Level.String()}
	for k, v := range e.Data {
		args = append(args, k, v)
	}
	to.Debug(e.Message, args...)
	return nil
}
