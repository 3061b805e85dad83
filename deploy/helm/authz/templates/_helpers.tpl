{{- define "authz.name" -}}
{{- if contains "authz" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-authz" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "authz.selector" -}}
app.kubernetes.io/name: authz
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "authz.labels" -}}
{{ include "authz.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "authz.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "authz.name" .) }}
{{- end }}

{{- define "authz.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* Refuses values that render, but would not decide rightly. */}}
{{- define "authz.check" -}}
{{- $kind := .Values.kind -}}
{{- if eq .Values.state.engine "embedded" -}}
{{- if ne $kind "StatefulSet" -}}
{{- fail (printf "state.engine: embedded keeps tasks and revocations in the pod's own volume, and kind: %s starts several pods or loses the volume. Set kind: StatefulSet and replicas: 1, or state.engine: postgresql." $kind) -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "state.engine: embedded with replicas: %d. Each replica would have tasks, budgets and revocations of its own. Set replicas: 1, or state.engine: postgresql." (int .Values.replicas)) -}}
{{- end -}}
{{- if .Values.state.dsnSecret.name -}}
{{- fail "state.dsnSecret is given, but state.engine is embedded: tasks would not be shared. Set state.engine: postgresql, or remove dsnSecret." -}}
{{- end -}}
{{- else if not .Values.state.dsnSecret.name -}}
{{- fail "state.engine: postgresql has no state.dsnSecret.name. Name the Secret that has the connection string." -}}
{{- end -}}
{{- if and .Values.config.state (hasKey .Values.config.state "engine") -}}
{{- fail "config.state.engine: set state.engine of the chart instead, which checks the number of replicas." -}}
{{- end -}}
{{- if and .Values.bundle.files .Values.bundle.volume -}}
{{- fail "bundle.files and bundle.volume are both given. Keep one." -}}
{{- else if not (or .Values.bundle.files .Values.bundle.volume) -}}
{{- fail "no bundle: set bundle.files (`authz bundle values FOLDER` prints it) or bundle.volume." -}}
{{- end -}}
{{- $size := 0 -}}
{{- range $name, $content := .Values.bundle.files -}}
{{- $size = add $size (len $content) -}}
{{- if contains "__" $name -}}
{{- fail (printf "bundle.files: `%s` has `__`, which stands for `/` in the keys of the ConfigMap. Rename the file." $name) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $size) 1000000 -}}
{{- fail (printf "bundle.files has %d bytes; a ConfigMap holds 1 MiB. Use bundle.volume." (int $size)) -}}
{{- end -}}
{{- include "authz.checkPage" . -}}
{{- if eq $kind "Sidecar" -}}
{{- if not .Values.sidecar.containers -}}
{{- fail "kind: Sidecar has no sidecar.containers. Add the containers of your agent." -}}
{{- end -}}
{{- else if not .Values.tls.secretName -}}
{{- fail "tls.secretName is missing: the listener `main` is on the network, and serves TLS only. Name a Secret with tls.crt, tls.key and ca.crt." -}}
{{- end -}}
{{- end }}

{{/* Refuses an approvals page that nobody could open, or log in at. */}}
{{- define "authz.checkPage" -}}
{{- $page := .Values.approvalsPage -}}
{{- if $page.enabled -}}
{{- if eq .Values.kind "Sidecar" -}}
{{- fail "approvalsPage.enabled with kind: Sidecar. Each pod of the agent would serve a page of its own. Serve the page from a Deployment or StatefulSet that shares the store." -}}
{{- end -}}
{{- if not $page.url -}}
{{- fail "approvalsPage.url is missing: the address of the page in the browser, for example https://authz.corp.example." -}}
{{- end -}}
{{- if not $page.tls.secretName -}}
{{- fail "approvalsPage.tls.secretName is missing: the page is on the network, and serves TLS only, also behind an ingress. Name a Secret with tls.crt and tls.key." -}}
{{- end -}}
{{- if not (or $page.login.issuer $page.passkeys.rpId) -}}
{{- fail "approvalsPage has neither login.issuer nor passkeys.rpId: nobody could log in. Set one." -}}
{{- end -}}
{{- if and $page.login.issuer (not $page.login.clientId) -}}
{{- fail "approvalsPage.login.clientId is missing: the client of the page at the issuer." -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The configuration of the approvals page: its listener, and how people log in. */}}
{{- define "authz.pageConfig" -}}
{{- $page := .Values.approvalsPage -}}
{{- $approvals := dict "url" $page.url -}}
{{- with $page.login -}}
{{- if .issuer -}}
{{- $login := dict "issuer" .issuer "client_id" .clientId "scopes" .scopes -}}
{{- if .clientSecret.name }}{{ $_ := set $login "client_secret_file" "/etc/authz/page/client_secret" }}{{ end -}}
{{- $_ := set $approvals "login" $login -}}
{{- end -}}
{{- end -}}
{{- with $page.passkeys -}}
{{- if .rpId }}{{ $_ := set $approvals "passkeys" (dict "rp_id" .rpId "name" .name) }}{{ end -}}
{{- end -}}
{{- $tls := dict "cert_file" "/etc/authz/page/tls.crt" "key_file" "/etc/authz/page/tls.key" -}}
{{- dict "approvals" $approvals "listeners" (dict "approvals" (dict "address" "0.0.0.0:8383" "tls" $tls)) | toYaml -}}
{{- end }}

{{/* The configuration of the node: what the chart sets, and over it the values. */}}
{{- define "authz.config" -}}
{{- $path := "/etc/authz/bundle" -}}
{{- with .Values.bundle.path }}{{ $path = printf "/etc/authz/bundle/%s" . }}{{ end -}}
{{- $main := dict "address" "unix:///run/authz/sockets/main.sock" -}}
{{- if ne .Values.kind "Sidecar" -}}
{{- $main = dict "address" "0.0.0.0:9191" "tls" (dict "cert_file" "/etc/authz/tls/tls.crt" "key_file" "/etc/authz/tls/tls.key" "client_ca_file" "/etc/authz/tls/ca.crt") -}}
{{- end -}}
{{- $state := dict "engine" .Values.state.engine -}}
{{- if eq .Values.state.engine "embedded" }}{{ $_ := set $state "path" "/var/lib/authz/state" }}{{ end -}}
{{- $own := dict
  "bundle" (dict "path" $path "require_manifest" (or (not (empty .Values.bundle.files)) .Values.bundle.requireManifest))
  "listeners" (dict
    "main" $main
    "admin" (dict "address" "unix:///run/authz/sockets/admin.sock")
    "metrics" (dict "address" "0.0.0.0:8282"))
  "state" $state
  "audit" (dict "path" "/var/lib/authz/audit.jsonl")
  "log" (dict "format" "json") -}}
{{- if .Values.approvalsPage.enabled }}{{ $own = merge $own (include "authz.pageConfig" . | fromYaml) }}{{ end -}}
{{- mergeOverwrite $own (deepCopy .Values.config) | toYaml -}}
{{- end }}

{{- define "authz.containerSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "authz.container" -}}
name: authz
image: {{ include "authz.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve]
env:
  - {name: AUTHZ_CONFIG, value: /etc/authz/config/config.yaml}
  - {name: AUTHZ_ADMIN, value: "unix:///run/authz/sockets/admin.sock"}
  - name: AUTHZ_NODE
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- if eq .Values.state.engine "postgresql" }}
  - name: AUTHZ_STATE_DSN
    valueFrom:
      secretKeyRef: {name: {{ .Values.state.dsnSecret.name }}, key: {{ .Values.state.dsnSecret.key }}}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  {{- if ne .Values.kind "Sidecar" }}
  - {name: grpc, containerPort: 9191}
  {{- end }}
  {{- if .Values.approvalsPage.enabled }}
  - {name: page, containerPort: 8383}
  {{- end }}
  - {name: metrics, containerPort: 8282}
# A bundle of 10,000 policies compiles within ten seconds; a large store takes as long to open.
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 2
  failureThreshold: 90
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "authz.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/authz/config, readOnly: true}
  - {name: bundle, mountPath: /etc/authz/bundle, readOnly: true}
  {{- if .Values.trust.files }}
  - {name: trust, mountPath: /etc/authz/trust, readOnly: true}
  {{- end }}
  {{- if and .Values.tls.secretName (ne .Values.kind "Sidecar") }}
  - {name: tls, mountPath: /etc/authz/tls, readOnly: true}
  {{- end }}
  {{- if .Values.approvalsPage.enabled }}
  - {name: page, mountPath: /etc/authz/page, readOnly: true}
  {{- end }}
  {{- if .Values.secrets }}
  - {name: secrets, mountPath: /etc/authz/secrets, readOnly: true}
  {{- end }}
  {{- if .Values.spiffe.csi }}
  - {name: spiffe, mountPath: /spiffe-workload-api, readOnly: true}
  {{- end }}
  - {name: run, mountPath: /run/authz}
  - {name: data, mountPath: /var/lib/authz, subPath: authz}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The folder of audit and store, which no other user may enter. The root of a volume belongs to others, and may be open to them. */}}
{{- define "authz.prepare" -}}
name: prepare
image: {{ include "authz.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [/opt/authz/bin/python, -c, "import os; os.makedirs('/data/authz', 0o700, exist_ok=True)"]
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "authz.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: data, mountPath: /data}
{{- end }}

{{/* Projected volumes: their folder is sticky. That of a plain configMap volume is open to everybody, and the node refuses it. */}}
{{- define "authz.volumes" -}}
- name: config
  projected:
    sources:
      - configMap: {name: {{ include "authz.name" . }}-config}
- name: bundle
  {{- if .Values.bundle.files }}
  projected:
    sources:
      - configMap:
          name: {{ include "authz.name" . }}-bundle
          items:
            {{- range $name, $_ := .Values.bundle.files }}
            - {key: {{ $name | replace "/" "__" | quote }}, path: {{ $name | quote }}}
            {{- end }}
            - {key: MANIFEST.sha256, path: MANIFEST.sha256}
  {{- else }}
  {{- toYaml .Values.bundle.volume | nindent 2 }}
  {{- end }}
{{- if .Values.trust.files }}
- name: trust
  projected:
    sources:
      - configMap: {name: {{ include "authz.name" . }}-trust}
{{- end }}
{{- if and .Values.tls.secretName (ne .Values.kind "Sidecar") }}
- name: tls
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ .Values.tls.secretName }}}
{{- end }}
{{- with .Values.approvalsPage }}
{{- if .enabled }}
- name: page
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .tls.secretName }}
          items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
      {{- with .login.clientSecret }}
      {{- if .name }}
      - secret:
          name: {{ .name }}
          items: [{key: {{ .key }}, path: client_secret}]
      {{- end }}
      {{- end }}
{{- end }}
{{- end }}
{{- if .Values.secrets }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $name, $from := .Values.secrets }}
      - secret:
          name: {{ $from.secretName }}
          items: [{key: {{ $from.key }}, path: {{ $name }}}]
      {{- end }}
{{- end }}
{{- if .Values.spiffe.csi }}
- name: spiffe
  csi: {driver: csi.spiffe.io, readOnly: true}
{{- end }}
- name: run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- if ne .Values.kind "StatefulSet" }}
- name: data
  emptyDir: {sizeLimit: {{ .Values.data.size }}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
