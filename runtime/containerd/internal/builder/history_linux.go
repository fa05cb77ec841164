package builder

import (
	"os"
	"sync"
	"sync/atomic"

	"github.com/moby/buildkit/cmd/buildkitd/config"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver/llbsolver/history"
	"github.com/moby/buildkit/util/leaseutil"
	bolt "go.etcd.io/bbolt"
)

// noHistory is the queue of build records that the solver insists on. It records
// nothing and is the process's only one, since its goroutine never ends.
var noHistory = sync.OnceValues(func() (*history.Queue, error) {
	none := int64(0)
	db := &noRecords{}
	q, err := history.NewQueue(history.QueueOpt{
		DB:           db,
		LeaseManager: leaseutil.WithNamespace(nil, ""),
		ContentStore: containerdsnapshot.NewContentStore(nil, ""),
		CleanConfig:  &config.HistoryConfig{MaxEntries: &none},
	})
	db.made.Store(true)
	return q, err
})

// noRecords is a database in which no record is ever found.
type noRecords struct{ made atomic.Bool }

func (db *noRecords) View(func(*bolt.Tx) error) error {
	if !db.made.Load() {
		return nil // asked for its version: nothing to migrate
	}
	return os.ErrNotExist
}

func (db *noRecords) Update(func(*bolt.Tx) error) error { return nil }
