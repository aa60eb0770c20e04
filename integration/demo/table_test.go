package main

import "testing"

func TestTable(t *testing.T) {
	got := table([]row{{"cold", 12.34, 7, 123456789}, {"again, nothing changed", 0.26, 7, 999}})
	want := `build                    seconds   layers   bytes (compressed)
cold                     12.3      7        123,456,789
again, nothing changed   0.3       7        999
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestSteps(t *testing.T) {
	got := steps(`#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s

#5 [1/3] FROM debian
#5 DONE 0.1s

#7 [3/3] RUN make
#7 0.1 output [1/1] of it
#7 DONE 3.4s

#6 [2/3] COPY . .
#6 CACHED

#8 [4/4] RUN make install
#8 0.004 replayed: nothing that it read has changed
#8 DONE 0.1s
optbuild: layers: 2 became 1
`)
	want := `DONE 0.1s    [1/3] FROM debian
CACHED       [2/3] COPY . .
DONE 3.4s    [3/3] RUN make
REPLAYED     [4/4] RUN make install
optbuild: layers: 2 became 1
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
