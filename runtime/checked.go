package runtime

// Checked is replaced below.
func Checked(rt Runtime) Runtime { return rt }
