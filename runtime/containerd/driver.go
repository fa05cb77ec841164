package containerd

// Driver is containerd's [runtime.Driver].
type Driver struct{}

const engine = "containerd"

// Name is what --runtime takes.
func (Driver) Name() string { return engine }
