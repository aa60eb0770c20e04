package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/sys"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/bklog"
	"github.com/moby/buildkit/util/grpcerrors"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // the codec that buildkitd answers with
	"github.com/moby/buildkit/util/tracing"
	"github.com/moby/buildkit/util/tracing/detect"
	"github.com/moby/buildkit/util/tracing/transform"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracev1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/optbuild/optbuild/builder/engine"
	"github.com/optbuild/optbuild/builder/outcome"
)

// stopGrace is how long Stop lets requests under way come to their end.
const stopGrace = 8 * time.Second

// Server is the gRPC side of an engine that stands where a buildkitd stands, with buildkitd's tracing: spans are recorded
// for the build history, sent to where OTEL_* variables say, and taken from steps over a socket.
type Server struct {
	grpc      *grpc.Server
	provider  *sdktrace.TracerProvider
	collector *grpc.Server
	serving   sync.WaitGroup
}

// NewServer makes the server, with more interceptors behind its own, and sets in o what the engine needs for tracing. The
// engine is made after it.
func (c Config) NewServer(ctx context.Context, o *engine.Options, more []grpc.UnaryServerInterceptor, traceSocket string) (*Server, error) {
	detect.Recorder = detect.NewTraceRecorder()
	spans := tracing.MultiSpanExporter{detect.Recorder}
	trace := []sdktrace.TracerProviderOption{sdktrace.WithResource(detect.Resource()), sdktrace.WithSyncer(detect.Recorder)}
	exporter, err := detect.NewSpanExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up tracing: %w", err)
	}
	if !detect.IsNoneSpanExporter(exporter) {
		spans = append(spans, exporter)
		trace = append(trace, sdktrace.WithBatcher(exporter))
	}
	s := &Server{provider: sdktrace.NewTracerProvider(trace...)}
	o.TraceCollector = spans
	if c.OTEL.SocketPath != "" {
		traceSocket = c.OTEL.SocketPath
	}
	if err := s.collect(traceSocket, spans); err != nil {
		return nil, fmt.Errorf("otel.socketPath: %w", err)
	}
	o.TraceSocket = traceSocket
	s.grpc = grpc.NewServer(
		grpc.StatsHandler(tracing.ServerStatsHandler(
			otelgrpc.WithTracerProvider(s.provider),
			otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
		)),
		grpc.ChainUnaryInterceptor(append([]grpc.UnaryServerInterceptor{logErrors, pushedOnly, recordedHere, grpcerrors.UnaryServerInterceptor}, more...)...),
		grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
	)
	return s, nil
}

// Serve offers the engine on the listeners.
func (s *Server) Serve(e *engine.Engine, listeners []net.Listener, credentials *tls.Config) {
	healthv1.RegisterHealthServer(s.grpc, health.NewServer())
	e.Register(s.grpc)
	reflection.Register(s.grpc)
	for _, l := range listeners {
		if credentials != nil && l.Addr().Network() == "tcp" {
			l = tls.NewListener(l, credentials)
		}
		s.serving.Add(1)
		go func() {
			defer s.serving.Done()
			if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				bklog.L.Errorf("serve on %s: %v", l.Addr(), err)
			}
		}()
	}
}

// Stop takes no more requests, gives those under way some seconds, then ends them.
func (s *Server) Stop() {
	hurry := time.AfterFunc(stopGrace, s.grpc.Stop)
	defer hurry.Stop()
	s.grpc.GracefulStop()
	s.serving.Wait()
	s.collector.Stop() // removes its socket
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.provider.Shutdown(ctx); err != nil {
		bklog.L.Warnf("send the last spans: %v", err)
	}
}

// collect takes spans from the processes of steps.
func (s *Server) collect(path string, to sdktrace.SpanExporter) error {
	l, err := sys.GetLocalListener(path, os.Getuid(), os.Getgid())
	if err != nil {
		return err
	}
	s.collector = grpc.NewServer()
	tracev1.RegisterTraceServiceServer(s.collector, &traceCollector{to: to})
	go s.collector.Serve(l)
	return nil
}

type traceCollector struct {
	tracev1.UnimplementedTraceServiceServer
	to sdktrace.SpanExporter
}

func (t *traceCollector) Export(ctx context.Context, req *tracev1.ExportTraceServiceRequest) (*tracev1.ExportTraceServiceResponse, error) {
	if err := t.to.ExportSpans(ctx, transform.Spans(req.GetResourceSpans())); err != nil {
		return nil, err
	}
	return &tracev1.ExportTraceServiceResponse{}, nil
}

// logErrors writes to the log which request failed; spans that can't be sent are nobody's error.
func logErrors(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err != nil && !strings.HasSuffix(info.FullMethod, "TraceService/Export") {
		bklog.G(ctx).Errorf("%s: %v", info.FullMethod, err)
	}
	return resp, err
}

// pushedOnly keeps an image that is pushed out of the local image store unless its client asks for store=true, as `optbuild
// build --push` does: the store pins layers, so a daemon that pushes a new tag with each build would fill the disk, and
// storing fetches base layers that a push does without. Stock buildkitd's worker has no such store.
func pushedOnly(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if r, ok := req.(*controlapi.SolveRequest); ok {
		for _, e := range r.Exporters {
			if e.Type == client.ExporterImage {
				notStored(e.Attrs)
			}
		}
		if r.ExporterDeprecated == client.ExporterImage { // older clients set only this
			notStored(r.ExporterAttrsDeprecated)
		}
	}
	return handler(ctx, req)
}

// recordedHere keeps clients from saying how an image was made, as the command may for its nodes: of a daemon's provenance others think that the daemon has recorded it.
func recordedHere(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if r, ok := req.(*controlapi.SolveRequest); ok {
		for _, e := range r.Exporters {
			delete(e.Attrs, outcome.AttrRecorded)
		}
		delete(r.ExporterAttrsDeprecated, outcome.AttrRecorded)
	}
	return handler(ctx, req)
}

func notStored(attrs map[string]string) {
	if push, _ := strconv.ParseBool(attrs["push"]); push && attrs["store"] == "" {
		attrs["store"] = "false"
	}
}
