package main

import "testing"

func TestSteps(t *testing.T) {
	logged, err := loggedSteps([]byte(`{"step":"FROM debian","outcome":"cached"}
{"step":"COPY . .","outcome":"executed"}
{"step":"RUN npm ci","outcome":"replayed"}
{"step":"WORKDIR /app","outcome":"cached"}
{"step":"RUN apt-get update","outcome":"failed"}
`))
	if want := (Steps{2, 1, 1}); logged != want || err != nil {
		t.Errorf("optbuild's: %+v, %v; want %+v", logged, err, want)
	}
	if _, err := loggedSteps([]byte(`{"step":"RUN x","outcome":"dreamt"}`)); err == nil {
		t.Error("an outcome that is not known is no error")
	}
	plain := plainSteps([]byte(`#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#4 [1/3] FROM docker.io/library/debian
#4 CACHED
#5 [2/3] WORKDIR /app
#5 CACHED
#6 [build 3/3] RUN echo DONE it
#6 0.070 DONE it
#6 DONE 0.1s
#7 exporting to image
#7 DONE 0.1s
`))
	if want := (Steps{Executed: 1, Cached: 1}); plain != want {
		t.Errorf("BuildKit's: %+v, want %+v", plain, want)
	}
	buildah := buildahSteps([]byte(`STEP 1/4: FROM debian:12
Resolved "debian" as an alias
STEP 2/4: WORKDIR /app
--> Using cache 0123456789ab
--> 0123456789ab
STEP 3/4: ENV A=b
--> Using cache 0123456789ab
STEP 4/4: RUN true
COMMIT app
--> 0123456789ac
`))
	if want := (Steps{Executed: 1, Cached: 1}); buildah != want {
		t.Errorf("buildah's: %+v, want %+v", buildah, want)
	}
}
